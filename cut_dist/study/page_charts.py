"""The figures of a study's page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from cut_dist import charts
from cut_dist.charts import Line
from cut_dist.study import findings
from cut_dist.study.findings import Row, Table
from cut_dist.study.names import name_of
from cut_dist.study.statistics import Interval

_LAMBDA = re.compile(r"(\w+)-lam(.+)")  # names of the part `weights`


def bars(rows: Table, measure: str = "accuracy", xlabel: str = "greedy accuracy, %") -> str:
    """A mean with its interval for each row that has the measure."""
    shown = [
        (name_of(what), *(100 * value for value in (row[measure].mean, row[measure].low, row[measure].high)))
        for what, row in rows.items()
        if measure in row
    ]
    return charts.intervals(shown, label=xlabel, xlabel=xlabel)


def over_lambda(row: Row, contrasts: Mapping[str, str]) -> str:
    """Precision and recall of the inappropriate tokens, a panel for each contrast."""
    panels = {f"{name}, %": _precision_and_recall(row, contrast) for contrast, name in contrasts.items()}
    panels = {name: lines for name, lines in panels.items() if any(line.points for line in lines)}
    return charts.curves(panels, label="Precision and recall over λ, %", xlabel="λ")


def by_size(rows: Table) -> str:
    """The same for contrast=fake, a panel for each model."""
    panels = {f"{what}, %": _precision_and_recall(row, "fake") for what, row in rows.items()}
    return charts.curves(panels, label="Precision and recall over λ by size of the model", xlabel="λ")


def _precision_and_recall(row: Row, contrast: str) -> list[Line]:
    return [_line(m, findings.curve(row, contrast, m)) for m in ("precision", "recall")]


def _line(name: str, points: Sequence[tuple[float, Interval]]) -> Line:
    """Means with their intervals, in per cent."""
    return Line(name, [(x, 100 * y.mean) for x, y in points], [(100 * y.low, 100 * y.high) for _, y in points])


def by_round(part: Table, base: Table) -> str:
    """Accuracy after each round, and the levels of the trainings at once."""
    start = [(0.0, base["base"]["accuracy"])] if base else []
    lines, rounds = [], 0.0
    for what, row in part.items():
        after = [(float(n), row[f"rounds.{n}.accuracy"]) for n in range(1, 100) if f"rounds.{n}.accuracy" in row]
        rounds = max([rounds, *(n for n, _ in after)])
        level = row["accuracy"]
        lines.append(_line(name_of(what), start + after if after else [(0.0, level), (rounds, level)]))
    return charts.curves({"greedy accuracy, %": lines}, label="Accuracy by round", xlabel="round")


def weights(part: Table) -> dict[str, Callable[[], str]]:
    """λ by contrast as curves, γ and α as bars; of rows named as in `parts`."""
    measured = {name: row for name, row in part.items() if "accuracy" in row}
    lams = {match.groups(): row for name, row in measured.items() if (match := _LAMBDA.fullmatch(name))}
    pairs = {name: row for name, row in measured.items() if name.startswith("gamma")}
    drawn = {"weights_lambda": (lams, lambda: _lambdas(lams)), "weights_gamma_alpha": (pairs, lambda: bars(pairs))}
    return {name: draw for name, (rows, draw) in drawn.items() if rows}


def _lambdas(rows: Mapping[tuple[str, str], Row]) -> str:
    contrasts = dict.fromkeys(contrast for contrast, _ in rows)

    def lines(measure: str) -> list[Line]:
        found = {c: [(float(lam), row[measure]) for (own, lam), row in rows.items() if own == c and measure in row]
                 for c in contrasts}  # fmt: skip
        return [
            _line(f"contrast={contrast}", sorted(points, key=lambda point: point[0]))
            for contrast, points in found.items()
        ]

    panels = {"greedy accuracy, %": lines("accuracy"), "families not judged, %": lines("others")}
    return charts.curves(panels, label="Accuracy over λ", xlabel="λ")
