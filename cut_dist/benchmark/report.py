"""Cases as tables in the terminal, and all of them as a JSON and a figure."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cut_dist.benchmark.timing import LIKELIHOOD
from cut_dist.throughput import GIB

log = logging.getLogger(__name__)

_UNITS = {"B/s": ("GB/s", 1e9), "FLOP/s": ("TFLOP/s", 1e12)}


def show(case: dict[str, Any], console: Console) -> None:
    """Print one summarised case."""
    rate, (unit, scale) = case["measured_rate"], _UNITS[case["measured_rate"]["unit"]]
    table = Table(title=case["title"], title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.caption = (
        f"{case['repetitions']} repetitions. ms: median. GiB: peak beside the inputs. Floor: {case['floor']}, here "
        f"{rate['value'] / scale:.3g} {unit}. Errors up to {case['tolerance']:g} pass. × ours: time divided by that of "
        f"“{case['ours']}”.{_footnote(case['contenders'])}"
    )
    table.caption_justify, table.caption_style = "left", "dim"
    more = {"tokens/s": ("useful_tokens_per_s", "{:,.0f}"), "MFU": ("mfu", "{:.1%}")}
    more = {name: how for name, how in more.items() if any(row.get(how[0]) for row in case["contenders"])}
    table.add_column("", header_style="dim")
    for name in ("error", "ms", "p20 – p80", "GiB", "of floor", "× ours", *more):
        table.add_column(name, justify="right", header_style="dim")
    for row in case["contenders"]:
        added = [shape.format(row[key]) for key, shape in more.values() if row.get(key)]
        table.add_row(*_cells(row), *added, style="" if row["status"] == "ok" else "dim")
    console.print(table)
    console.print()


def _cells(row: dict[str, Any]) -> list[str]:
    error = "" if row["error"] is None else f"{row['error']:.1e}"
    if "median_s" not in row:
        return [_name(row), error, row["status"]]
    return [
        _name(row),
        error,
        f"{row['median_s'] * 1000:.4g}",
        f"{row['p20_s'] * 1000:.4g} – {row['p80_s'] * 1000:.4g}",
        f"{row['peak_bytes'] / GIB:.3f}",
        f"{row['share_of_rate']:.0%}",
        f"{row['times_ours']:.2f}" if "times_ours" in row else "–",
    ]


def _name(row: dict[str, Any]) -> str:
    return row["name"] + (" *" if row["computes"] == LIKELIHOOD else "")


def _footnote(rows: Sequence[dict[str, Any]]) -> str:
    return f" * {LIKELIHOOD}." if any(row["computes"] == LIKELIHOOD for row in rows) else ""


def write(report: dict[str, Any], target: Path) -> None:
    """Write `<target>.json` and, where there is something to draw and matplotlib to draw it, `<target>.png`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(f"{target.name}.json").write_text(json.dumps(report, indent=1) + "\n")
    timed = [case for case in report["cases"] if any("median_s" in row for row in case["contenders"])]
    if timed and find_spec("matplotlib") is None:
        log.warning("no figure without matplotlib: pip install 'cut-dist[figures]'")
    elif timed:
        draw(timed, report["machine"], target.with_name(f"{target.name}.png"))


def draw(cases: Sequence[dict[str, Any]], machine: dict[str, Any], path: Path) -> None:
    """One panel of bars a case: milliseconds, or useful tokens a second for a step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [[row for row in case["contenders"] if "median_s" in row] for case in cases]
    figure, axes = plt.subplots(
        len(cases), 1, figsize=(9, sum(1.1 + 0.32 * len(r) for r in rows)), layout="constrained", squeeze=False,
        height_ratios=[1.1 + 0.32 * len(r) for r in rows],
    )  # fmt: skip
    for case, timed, axis in zip(cases, rows, axes[:, 0]):
        _bars(axis, case, timed)
    gpu = machine.get("gpu", {}).get("name")
    where = gpu or f"{machine['processor']}, {machine['threads']} threads"
    figure.suptitle(f"{where}, torch {machine['packages']['torch']}", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axis: Any, case: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    by_tokens = case["suite"] == "step"
    key, scale = ("useful_tokens_per_s", 1) if by_tokens else ("median_s", 1000)
    low, high = (f"{key}_p20", f"{key}_p80") if by_tokens else ("p20_s", "p80_s")
    values = [row[key] * scale for row in rows]
    # a median or mean may lie outside of few samples' percentiles
    below = [max(0, row[key] - row[low]) * scale for row in rows]
    above = [max(0, row[high] - row[key]) * scale for row in rows]
    colours = ["C0" if row["name"].startswith("cut_dist") else "0.65" for row in rows]
    bars = axis.barh(range(len(rows)), values, xerr=[below, above], color=colours, ecolor="0.3", height=0.7)
    axis.bar_label(bars, [f"{v:,.3g}" if v < 1000 else f"{v:,.0f}" for v in values], padding=4, fontsize=8)
    names = [_name(row) for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_title(case["title"], fontsize=9, loc="left")
    unit = "useful tokens a second" if by_tokens else "ms, forward and backward."
    axis.set_xlabel(unit + _footnote(rows), fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
