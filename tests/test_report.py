"""The report's last line says whether the run is at its end, and what to do."""

from __future__ import annotations

import io

from rich.console import Console

from cut_dist import report
from cut_dist.run_folder import mark_finished


def test_the_last_line_says_whether_the_run_is_finished(tmp_path):
    def last_line() -> str:
        out = io.StringIO()
        report.show(tmp_path, [], Console(file=out, width=40))
        return out.getvalue().splitlines()[-1]

    assert last_line() == "unfinished  the same command continues this run"
    mark_finished(tmp_path, {"steps": 1})
    assert last_line() == "finished    after 1 step; run.resume=never trains anew, run.name=… beside it"
