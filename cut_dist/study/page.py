"""report.html of a study, and its figures."""
