"""A sweep's ranking in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cut_dist.preview.tokens import printable
from cut_dist.report import ROWS
from cut_dist.sweep.ranking import duration, key_labels, number, ordered, short_label, shown_metrics
from cut_dist.sweep.results import Direction, SweepResult
from cut_dist.wording import counted


def show(
    sweep: SweepResult,
    placed: dict[int, int],
    metric: str,
    direction: Direction,
    files: list[Path],
    console: Console | None = None,
) -> None:
    """Print the jobs, the best first, why some have no rank, and where the files are.

    Args:
        placed: as `results.ranks` returns it.
        files: what was written.
        console: where to print; the terminal by default.
    """
    console = console or Console()
    labels = key_labels(list(sweep.swept))
    names = shown_metrics(sweep, metric)[: min(4, max(2, 7 - len(labels)))]  # what 80 columns have room for
    table = Table(title=_title(sweep, metric, direction), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("rank", justify="right")
    for key, label in labels.items():
        longest = max(map(len, sweep.swept[key]))
        table.add_column(_plain(label), justify="right", overflow="fold", min_width=min(longest, 10))
    for label in [*map(short_label, names), "time"]:
        table.add_column(_plain(label.replace(" ", "\n", 1)), justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for job in ordered(sweep, placed):
        settings = [_plain(job.overrides.get(key, "")) for key in sweep.swept]
        values = [number(job.numbers.get(name)) for name in names]
        rank = str(placed.get(job.index, ""))
        table.add_row(rank, *settings, *values, duration(job.numbers.get("seconds")), _plain(job.status))
    console.print(table)
    for job in sweep.jobs:
        if job.reason:
            line = f"{printable(job.name)}: {printable(job.reason)}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    for path in files:
        console.print(f"{path.stem:12}{path}", soft_wrap=True, highlight=False, markup=False)


def _title(sweep: SweepResult, metric: str, direction: Direction) -> str:
    best = "lowest" if direction == "min" else "highest"
    heldout = "held-out " if metric.removesuffix("_before") in ROWS else ""
    order = f"the {best} {heldout}{short_label(metric)} first"
    return f"{_plain(sweep.name)}: {counted(len(sweep.jobs), 'job')}, {order}"


def _plain(text: str) -> str:
    """Text that rich takes for no markup and the terminal for no command."""
    return escape(printable(text))
