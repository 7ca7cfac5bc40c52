"""Charts for pages: data in, one SVG element as text out, drawn by matplotlib (the extra `figures`).

Vectors and text only, so that a page may forbid images. The colours can be told apart by the colour-blind (Okabe and
Ito's, and viridis), and what a colour says is said by a number, a mark or a name too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

from cut_dist.preview.tokens import printable
from cut_dist.web_page import escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REMEDY = "pip install matplotlib"

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4A9C", "#3F3F3F")
MOST = len(_COLOURS)  # curves of one panel that have a colour of their own
_DASHES = ("-", "--", "-.", ":")  # a second sign beside the colour
_GREY, _INK, _MARK = "#c3c9d1", "#1c2430", "#D55E00"
_WIDTH = 10.4  # inches of 100 pixels: what a page of 1080 pixels has room for
_PANELS_A_ROW = 4


@dataclass(frozen=True)
class Line:
    """A named curve, (x, y) each; y that is not finite leaves a gap. `band`: the interval of each y, drawn behind."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Axis:
    """An axis of parallel coordinates: its name, and its values as text, the lowest first."""

    name: str
    values: Sequence[str]


def available() -> bool:
    """Whether matplotlib is installed; if not, the functions below raise ImportError."""
    return importlib.util.find_spec("matplotlib") is not None


def curves(panels: Mapping[str, Sequence[Line]], *, label: str, xlabel: str) -> str:
    """Panels side by side, title → lines, with one legend.

    Args:
        panels: the lines that matter come first in each, in one order: the first `MOST` names have a colour and a
            place in the legend, the others are grey. The vertical range is that of the coloured lines, widened at most
            threefold for the grey ones.
        label: what the chart shows, for those who can't see it.
    """
    names = list(dict.fromkeys(line.name for lines in panels.values() for line in lines))
    coloured = {name: i for i, name in enumerate(names[:MOST])}
    shown = {name: _short(name, 62) for name in coloured}
    columns = max(1, min(3, 130 // max(map(len, shown.values()), default=1)))
    legend_rows = math.ceil(len(coloured) / columns)
    with _figure(_WIDTH, 3.0 + 0.22 * legend_rows) as figure:
        for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
            for line in sorted(lines, key=lambda line: -coloured.get(line.name, MOST)):  # the first one on top
                style = _style(coloured.get(line.name))
                axes.plot(*_xy(line), **style)
                if line.band:
                    low, high = zip(*line.band)
                    axes.fill_between(_xy(line)[0], low, high, color=style["color"], alpha=0.15, linewidth=0)
            axes.set(title=title, xlabel=xlabel)
            axes.xaxis.get_major_locator().set_params(integer=True)  # steps and rounds
            shown_lines = [line for line in lines if line.name in coloured]
            _limit(axes, [[*_xy(line)[1], *chain(*line.band)] for line in shown_lines], lines)
            axes.grid(alpha=0.25)
        handles = [_handle(shown[name], i) for name, i in coloured.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        return _svg(figure, label)


def heat_maps(
    grids: Mapping[str, Mapping[tuple[str, str], float]],
    *,
    label: str,
    x: Axis,
    y: Axis,
    best: Literal["min", "max"] | None,
) -> str:
    """One map for each grid, title (of some lines) → {(x value, y value): number}, all in one scale of colours.

    Args:
        best: which end of the numbers is marked by a frame, in the whole chart; None marks none.
    """
    numbers = [v for grid in grids.values() for v in grid.values() if math.isfinite(v)]
    marked = {"min": min, "max": max}[best](numbers) if best and numbers else None
    columns = min(len(grids), _PANELS_A_ROW, max(1, int(_WIDTH / (0.4 * len(x.values) + 0.6))))
    rows = math.ceil(len(grids) / columns)
    width = min(_WIDTH, columns * max(2.6, 0.62 * len(x.values) + 0.9))
    title_lines = max(title.count("\n") for title in grids)
    with _figure(width, rows * (0.42 * len(y.values) + 0.95 + 0.17 * title_lines)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes, (title, grid) in zip(panels.flat, grids.items()):
            _heat_map(axes, grid, x, y, (min(numbers, default=0.0), max(numbers, default=1.0)), marked)
            axes.set_title("\n".join(_short(line, 30) for line in title.split("\n")))
        for axes in panels.flat[len(grids) :]:
            axes.set_axis_off()
        for axes in panels[:, 0]:
            axes.set_ylabel(y.name)
        return _svg(figure, label)


def dots(x: Axis, points: Sequence[tuple[str, float]], *, label: str, ylabel: str) -> str:
    """A number over the values of one axis, evenly spaced; points of one value stand above each other."""
    means = {v: [y for value, y in points if value == v and math.isfinite(y)] for v in x.values}
    drawn = [(i, means[v]) for i, v in enumerate(x.values) if means[v]]
    with _figure(min(_WIDTH, 2.0 + 0.9 * len(x.values)), 2.6) as figure:
        panel = figure.add_subplot()
        panel.plot([i for i, _ in drawn], [sum(ys) / len(ys) for _, ys in drawn], color=_COLOURS[0], linewidth=1.5)
        panel.plot([i for i, ys in drawn for _ in ys], [y for _, ys in drawn for y in ys], "o", color=_COLOURS[0])
        panel.set_xticks([x.values.index(value) for value in _some(x.values)], map(_short, _some(x.values)))
        panel.set(xlabel=x.name, ylabel=ylabel, xlim=(-0.5, len(x.values) - 0.5))
        panel.grid(alpha=0.25)
        return _svg(figure, label)


def intervals(rows: Sequence[tuple[str, float, float, float]], *, label: str, xlabel: str) -> str:
    """A line for each row, the first on top: (name, middle, low, high), the interval as a bar around its middle.

    Low and high may be nan: the middle stands alone.
    """
    span = _span([number for _, *numbers in rows for number in numbers if math.isfinite(number)])
    with _figure(7.2, 0.75 + 0.3 * len(rows)) as figure:
        panel = figure.add_subplot()
        for place, (_, middle, low, high) in enumerate(rows):
            panel.plot([low, high], [place, place], color=_COLOURS[0], linewidth=2.2, solid_capstyle="butt")
            panel.plot([middle], [place], "o", color=_COLOURS[0], markersize=5)
            text, end = f"{middle:.{_decimals(span)}f}", high if math.isfinite(high) else middle
            panel.annotate(text, (end, place), (6, 0), textcoords="offset points", va="center", fontsize=8)
        panel.set_yticks(range(len(rows)), [_short(name, 40) for name, *_ in rows])
        panel.set(xlabel=xlabel, ylim=(len(rows) - 0.4, -0.6))
        panel.margins(x=0.12)
        panel.grid(axis="x", alpha=0.25)
        return _svg(figure, label)


def parallel_coordinates(
    axes: Sequence[Axis], rows: Sequence[tuple[Sequence[str], float]], *, label: str, metric: str, best: int | None
) -> str:
    """A line for each row through its value on each axis to its number on the last, which also colours it.

    Args:
        rows: (value on each axis, number); those whose number is not finite are left out.
        metric: name of the last axis.
        best: index in `rows` of the line that is drawn over the others.
    """
    drawn = {i: row for i, row in enumerate(rows) if math.isfinite(row[1])}
    low, high = _span([number for _, number in drawn.values()])
    with _figure(_WIDTH, 3.4) as figure:
        panel = figure.add_subplot()
        for i in sorted(drawn, key=lambda i: i == best):
            values, number = drawn[i]
            end = _share(number, low, high)
            apart = 0.06 * (end - 0.5)  # so that jobs that share a value don't hide each other
            heights = [*(_height(axis, value) + apart for axis, value in zip(axes, values)), end]
            thick, over = (3.2, 1.0) if i == best else (1.3, 0.75)
            panel.plot(range(len(heights)), heights, color=_shade(heights[-1]), linewidth=thick, alpha=over)
        for at, axis in enumerate(axes):
            _vertical(panel, at, [(_height(axis, value), _short(value)) for value in _some(axis.values)])
        ticks = [(i / 4, f"{low + i / 4 * (high - low):.{_decimals((low, high))}f}") for i in range(5)]
        _vertical(panel, len(axes), ticks)
        panel.set_xticks(range(len(axes) + 1), [*(axis.name for axis in axes), metric])
        panel.set(xlim=(-0.15, len(axes) + 0.35), ylim=(-0.07, 1.07), yticks=[])
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        return _svg(figure, label)


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` points: means over stretches of equal length, which keep the level as single points would not."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(len(points) / most)
    parts = [points[i : i + stretch] for i in range(0, len(points), stretch)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


# ---- pieces ----------------------------------------------------------------------------------------------------------


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure outside pyplot's state, whose texts are never taken for mathematics."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none", "svg.hashsalt": "cut_dist", "text.parse_math": False,
        "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "text.color": _INK,
        "axes.labelcolor": _INK, "axes.edgecolor": "#9aa3af", "axes.spines.top": False, "axes.spines.right": False,
        "legend.frameon": False, "legend.fontsize": 8.5,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, label: str) -> str:
    """The figure as an element whose ids are unlike those of any other chart on the page."""
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser's fonts have more than matplotlib's
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    drawn = re.sub(r"<metadata>.*?</metadata>|<style type=.*?</style>", "", out.getvalue(), flags=re.DOTALL)
    drawn = printable(drawn[drawn.index("<svg") :])
    drawn = re.sub(r'(style="[^"]*)font-family: [^;"]*; ?', r"\1", drawn)  # text takes the page's font
    own = "c" + hashlib.sha256((label + drawn).encode()).hexdigest()[:10]
    drawn = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{own}-", drawn)
    width = figure.get_figwidth() * 100
    head = f'<svg class="chart" role="img" aria-label="{escape(label)}" width="{width:.0f}"'
    drawn = re.sub(r'^<svg ([^>]*?)(?:width|height)="[^"]*"', r"<svg \1", drawn)
    drawn = re.sub(r'^<svg ([^>]*?)(?:width|height)="[^"]*"', r"<svg \1", drawn)
    return drawn.replace("<svg", head, 1)


def _short(text: str, most: int = 22) -> str:
    """A name that fits; its end stays, which tells paths and lists apart better."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _some(values: Sequence[str], most: int = 9) -> Sequence[str]:
    """As many of an axis's values as there is room to name, evenly spread."""
    return values[:: math.ceil(len(values) / most)]


def _style(place: int | None) -> dict[str, object]:
    if place is None:
        return {"color": _GREY, "linewidth": 0.8}
    dash = _DASHES[place % len(_DASHES)]
    return {"color": _COLOURS[place % len(_COLOURS)], "linewidth": 2.6 if place == 0 else 1.5, "linestyle": dash}


def _handle(name: str, place: int) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=name, **_style(place))


def _xy(line: Line) -> tuple[list[float], list[float]]:
    return [x for x, _ in line.points], [y if math.isfinite(y) else math.nan for _, y in line.points]


def _limit(axes: Axes, important: Sequence[Sequence[float]], lines: Sequence[Line]) -> None:
    """Keep one diverged line from pressing all others flat."""
    inner = [y for ys in important for y in ys if math.isfinite(y)]
    if not inner:
        return
    low, high = _span(inner)
    every = inner + [y for line in lines for _, y in line.points if math.isfinite(y)]
    bottom, top = _span([max(min(every), low - (high - low)), min(max(every), high + (high - low))])
    margin = 0.05 * (top - bottom)
    axes.set_ylim(bottom - margin, top + margin)


def _heat_map(
    axes: Axes, grid: Mapping[tuple[str, str], float], x: Axis, y: Axis, span: tuple[float, float], marked: float | None
) -> None:
    from matplotlib.patches import Rectangle

    for column, at_x in enumerate(x.values):
        for row, at_y in enumerate(y.values):
            number = grid.get((at_x, at_y))
            share = None if number is None or not math.isfinite(number) else _share(number, *span)
            colour = "#f0f1f4" if share is None else _shade(share)
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
            if number is not None and number == marked:
                inset = {"edgecolor": _MARK, "linewidth": 3, "fill": False, "zorder": 3}
                axes.add_patch(Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, **inset))
            text = "–" if number is None else f"{number:.{_decimals(span)}f}"
            ink = _INK if share is None or share > 0.42 else "white"
            weight = "bold" if number is not None and number == marked else "normal"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, weight=weight, fontsize=8)
    axes.set(xlim=(0, len(x.values)), ylim=(0, len(y.values)), xlabel=x.name)
    axes.set_xticks([i + 0.5 for i in range(len(x.values))], [_short(value, 12) for value in x.values])
    axes.set_yticks([i + 0.5 for i in range(len(y.values))], [_short(value, 12) for value in y.values])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _vertical(axes: Axes, at: float, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot([at, at], [0, 1], color="#9aa3af", linewidth=1, zorder=3)
    for height, text in ticks:
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.2}
        axes.text(at + 0.03, height, text, va="center", fontsize=8.5, zorder=4, bbox=box)


def _height(axis: Axis, value: str) -> float:
    """Where on an axis a value lies: evenly spaced, since λ, a seed and a name have no scale in common."""
    return axis.values.index(value) / (len(axis.values) - 1) if len(axis.values) > 1 else 0.5


def _decimals(span: tuple[float, float]) -> int:
    """The same for all numbers of a chart: so many that the largest has four digits that count, four at most."""
    largest = max(map(abs, span))
    return min(4, max(0, 3 - math.floor(math.log10(largest)))) if largest > 0 else 1


def _span(numbers: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, never the same."""
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    room = 0.0 if high > low else max(abs(high), 1.0) * 0.05
    return low - room, high + room


def _share(number: float, low: float, high: float) -> float:
    return (number - low) / (high - low) if high > low else 0.5


def _shade(share: float) -> str:
    """viridis from its second fifth on: dark is low, light is high, and black or white text can be read on it."""
    import matplotlib
    from matplotlib.colors import to_hex

    return to_hex(matplotlib.colormaps["viridis"](0.15 + 0.8 * share))
