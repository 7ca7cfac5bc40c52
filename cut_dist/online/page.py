"""placeholder"""


def write_report(cfg, online):
    (online / "report.html").write_text("x")
