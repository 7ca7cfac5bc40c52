"""A sweep's result: results.csv, report.html, and the ranking in the terminal."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console

from cut_dist import charts, durable
from cut_dist.sweep import page, table
from cut_dist.sweep.results import Direction, ranks, read_sweep, write_csv

REPORT_FILE = "report.html"

log = logging.getLogger(__name__)


def write_report(
    folder: Path, metric: str | None = None, direction: Direction = "min", console: Console | None = None
) -> None:
    """Read the sweep in `folder`, finished or not, write its results.csv and report.html, and print the ranking.

    Args:
        metric: what jobs are ranked by, one of `metric.METRICS` or `verifiable_<name>`; None takes the sweep's own,
            with its direction.
        direction: which end of `metric` is the better one.
        console: where to print; the terminal by default.

    Raises:
        SweepError: `folder` is no sweep's, or no such metric exists.
    """
    sweep = read_sweep(folder)
    if metric is None:
        metric, direction = sweep.metric, sweep.direction
    placed = ranks(sweep, metric, direction)
    numbers = write_csv(sweep, placed)  # first: whatever happens to the page, these are there
    path = folder / REPORT_FILE
    if not charts.available():
        log.warning("%s has tables only: for its charts, %s, and make it anew", path, charts.REMEDY)
    durable.replace_file(path, page.render(sweep, placed, metric, direction).encode())
    table.show(sweep, placed, metric, direction, [numbers, path], console)
