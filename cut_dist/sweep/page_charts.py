"""The charts of a sweep's report: heat maps, parallel coordinates, curves."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence

from cut_dist import charts
from cut_dist.charts import Axis, Line
from cut_dist.sweep.metric import VERIFIABLE
from cut_dist.sweep.ranking import key_labels, metric_label, settings, short_label, shown_metrics
from cut_dist.sweep.results import Direction, JobResult, SweepResult
from cut_dist.web_page import escape

_FIRST_KEYS = ("objective.lam", "objective.alpha", "objective.gamma")
_MOST_MAPS = 24  # of one metric; jobs may be swept over more keys than a page can show
_SPARSE = 4  # times more places in the grid than jobs
_MOST_POINTS = 6000  # in a panel of curves, all jobs together
_MOST_STEPS = 100  # of one job's training loss, which is noisy


def sections(sweep: SweepResult, jobs: Sequence[JobResult], metric: str, direction: Direction) -> dict[str, str]:
    """Title → HTML of each section; a section with nothing to show is empty.

    Args:
        jobs: all of them, the best first.
    """
    keys = sorted((key for key, values in sweep.swept.items() if len(values) > 1), key=_place)
    measured = [name for name in shown_metrics(sweep, metric) if name.startswith(VERIFIABLE)]
    names = dict.fromkeys([metric, "loss", "share_inappropriate", *measured])
    maps = [_values(sweep, keys, name, direction if name == metric else None) for name in names]
    if _is_grid(sweep, keys) and any(maps):
        words = f"Dark is low, light is high; a frame marks the best by {short_label(metric)}. –: no finished job."
        maps.append(f'<p class="dim">{escape(words)}</p>')
    elif any(maps):
        maps.append('<p class="dim">A dot is a job, the line joins means. Values are evenly spaced.</p>')
    return {
        "The swept values against each other" if len(keys) > 1 else "The swept value": "".join(maps),
        "Parallel coordinates": _parallel(sweep, jobs, keys, metric) if len(keys) > 1 else "",
        "Curves": _curves(sweep, jobs, keys),
    }


def _place(key: str) -> int:
    """λ and α span the maps and γ parts them, however they were typed; other keys follow in their order."""
    return _FIRST_KEYS.index(key) if key in _FIRST_KEYS else len(_FIRST_KEYS)


def _finished(jobs: Sequence[JobResult], metric: str) -> list[JobResult]:
    return [job for job in jobs if job.status == "finished" and metric in job.numbers]


def _axis(sweep: SweepResult, key: str) -> Axis:
    """Numbers in their order, whatever order they were tried in; other values as they were given."""
    values = sweep.swept[key]
    with contextlib.suppress(ValueError):
        values = sorted(values, key=float)
    return Axis(key_labels(list(sweep.swept))[key], values)


def _values(sweep: SweepResult, keys: list[str], metric: str, best: Direction | None) -> str:
    """How the metric depends on the swept values: maps of a grid, or dots for each key where there is no grid."""
    jobs, title = _finished(sweep.jobs, metric), metric_label(metric)
    if not jobs or not keys:
        return ""
    grid = _is_grid(sweep, keys)
    drawn = _maps(sweep, keys, jobs, metric, best) if grid else _dots(sweep, keys, jobs, metric)
    return f"<h3>{escape(title[:1].upper() + title[1:])}</h3>{drawn}"


def _is_grid(sweep: SweepResult, keys: list[str]) -> bool:
    """Whether maps of the values would be filled; those of a search, which proposes ever new ones, would not."""
    cells = math.prod(len(sweep.swept[key]) for key in keys)
    return len(keys) > 1 and cells <= _SPARSE * len(sweep.jobs)


def _dots(sweep: SweepResult, keys: list[str], jobs: list[JobResult], metric: str) -> str:
    drawn = []
    for key in keys:
        axis, title = _axis(sweep, key), metric_label(metric)
        points = [(job.overrides[key], job.numbers[metric]) for job in jobs]
        drawn.append(charts.dots(axis, points, label=f"{title} by {axis.name}", ylabel=title))
    return "".join(drawn)


def _maps(sweep: SweepResult, keys: list[str], jobs: list[JobResult], metric: str, best: Direction | None) -> str:
    """Maps over the first two keys, one for each combination of the others."""
    labels = key_labels(list(sweep.swept))
    across, up, *rest = keys
    grids = {}
    for values in itertools.product(*(sweep.swept[key] for key in rest)):
        own = [job for job in jobs if all(job.overrides[key] == value for key, value in zip(rest, values))]
        named = "\n".join(f"{labels[key]} = {value}" for key, value in zip(rest, values))
        grids[named] = {(job.overrides[across], job.overrides[up]): job.numbers[metric] for job in own}
    shown = dict(itertools.islice(grids.items(), _MOST_MAPS))
    left = len(grids) - len(shown)
    note = f'<p class="dim">{left} more maps are left out here; results.csv has their numbers.</p>' if left else ""
    x, y = _axis(sweep, across), _axis(sweep, up)
    label = f"{metric_label(metric)} by {x.name} and {y.name}"
    return charts.heat_maps(shown, label=label, x=x, y=y, best=best) + note


def _parallel(sweep: SweepResult, jobs: Sequence[JobResult], keys: list[str], metric: str) -> str:
    drawn = _finished(jobs, metric)
    if not any(math.isfinite(job.numbers[metric]) for job in drawn):
        return ""
    axes = [_axis(sweep, key) for key in keys]
    rows = [([job.overrides[key] for key in keys], job.numbers[metric]) for job in drawn]
    title = metric_label(metric)
    # `jobs` are the best first, and a job with a finite number is the best of those drawn
    chart = charts.parallel_coordinates(axes, rows, label=f"Each job's values and {title}", metric=title, best=0)
    return chart + '<p class="dim">Each line is a job, coloured by its last axis; the best one is thick.</p>'


def _curves(sweep: SweepResult, jobs: Sequence[JobResult], keys: list[str]) -> str:
    most = max(20, _MOST_POINTS // max(1, len(jobs)))
    most_steps = min(most, _MOST_STEPS)

    def heldout(job: JobResult, metric: str) -> list[tuple[float, float]]:
        return charts.thinned([(row["step"], row[metric]) for row in job.evaluations if metric in row], most)

    points = {
        "Held-out loss": [heldout(job, "loss") for job in jobs],
        "Held-out share of inappropriate tokens": [heldout(job, "share_inappropriate") for job in jobs],
        "Training loss": [charts.thinned(job.train, most_steps) for job in jobs],
    }
    names = [settings(job, keys) for job in jobs]
    panels = {title: [Line(n, own) for n, own in zip(names, every) if own] for title, every in points.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return ""
    longest = max(len(job.train) for job in jobs)
    stretch = math.ceil(longest / most_steps)
    means = f" Training loss: means of {stretch} steps." if stretch > 1 else ""
    grey = f"The {charts.MOST} best have a colour, the others are grey and may leave a panel."
    note = f'<p class="dim">{grey if len(jobs) > charts.MOST else "The best first."}{means}</p>'
    return charts.curves(panels, label="Losses and share of inappropriate tokens over steps", xlabel="step") + note
