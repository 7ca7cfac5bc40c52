"""Charts as SVG elements: what they show is in their text, and nothing of a name is ever markup or mathematics."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from cut_dist.charts import Axis, Line, curves, dots, heat_maps, intervals, parallel_coordinates, thinned

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img" and root.get("viewBox")
    assert not root.findall(f".//{SVG}image") and not root.findall(f".//{SVG}style"), "a page may forbid images"
    return ["".join(node.itertext()).strip() for node in root.iter(f"{SVG}text")]


def test_a_heat_map_says_its_numbers_and_frames_the_best():
    grids = {"γ = 1": {("1.1", "0.5"): 2.25, ("1.2", "0.5"): math.nan}, "γ = 2": {("1.1", "1"): 1.5}}
    x, y = Axis("λ", ["1.1", "1.2"]), Axis("α", ["0.5", "1"])
    drawn = {best: heat_maps(grids, label="loss", x=x, y=y, best=best) for best in ("min", "max", None)}
    found = texts(drawn["min"])
    assert {"γ = 1", "γ = 2", "λ", "α", "2.250", "1.500", "nan"} <= set(found) and found.count("–") == 5
    heavy = r"<text[^>]*font(?:-weight)?: (?:700|bold)[^>]*>(.*?)</text>"
    bold = {best: re.findall(heavy, svg) for best, svg in drawn.items()}
    assert bold == {"min": ["1.500"], "max": ["2.250"], None: []}


def test_curves_name_the_first_eight_and_leave_gaps():
    lines = [Line(f"job {i}", [(0, 3.0), (1, math.nan), (2, 2.0 + i)]) for i in range(10)]
    svg = curves({"Loss": lines, "Share": lines[:2]}, label="both", xlabel="step")
    found = texts(svg)
    assert {"Loss", "Share", "step", "job 0", "job 7"} <= set(found) and "job 8" not in found
    assert svg.count("#c3c9d1") == 2, "the others are grey"


def test_one_diverged_line_does_not_press_the_others_flat():
    lines = [Line(f"job {i}", [(0, 3.0), (1, 2.0 + 0.1 * i)]) for i in range(8)]
    ticks = [
        float(text)
        for text in texts(curves({"Loss": [*lines, Line("bad", [(0, 3.0), (1, 1e9)])]}, label="", xlabel=""))
        if re.fullmatch(r"\d+\.\d+", text)
    ]
    assert max(ticks) < 6


def test_parallel_coordinates_leave_out_what_is_not_finite():
    axes = [Axis("λ", ["1.1", "1.2"]), Axis("seed", ["1"])]
    rows = [(["1.1", "1"], 2.0), (["1.2", "1"], 3.0), (["1.1", "1"], math.nan)]
    svg = parallel_coordinates(axes, rows, label="jobs", metric="loss", best=0)
    assert {"λ", "seed", "loss", "1.1", "1.2", "2.000", "3.000"} <= set(texts(svg))
    assert "nan" not in svg


def test_dots_name_their_values():
    found = texts(dots(Axis("lr", ["1e-5", "3e-5"]), [("1e-5", 2.0), ("1e-5", 2.5)], label="l", ylabel="loss"))
    assert {"1e-5", "3e-5", "lr", "loss"} <= set(found)


def test_intervals_name_their_rows_and_say_each_middle():
    rows = [("one", 20.0, 15.0, 25.0), ("alone", 30.0, math.nan, math.nan)]
    found = texts(intervals(rows, label="l", xlabel="accuracy"))
    assert {"one", "alone", "accuracy", "20.00", "30.00"} <= set(found) and "nan" not in found
    assert found.index("one") < found.index("alone")


def test_names_are_neither_markup_nor_mathematics():
    name = "<b>&\"$\\frac{1}{2}$\x1b[1m"
    svg = curves({"Loss": [Line(name, [(0, 1.0)])]}, label=name, xlabel=name)
    shown = name.replace("\x1b", "\\x1b")
    assert texts(svg).count(shown) == 2, "in the legend and along the axis"
    assert ElementTree.fromstring(svg).get("aria-label") == shown


def test_a_long_name_is_cut_in_front():
    x = Axis("path", ["runs/a-long-name-of-an-experiment/default/model", "b"])
    assert "…eriment/default/model" in texts(dots(x, [("b", 1.0)], label="l", ylabel="loss"))


def test_two_charts_share_no_id_and_the_same_chart_is_the_same_text():
    def draw(label: str) -> str:
        return curves({"Loss": [Line("a", [(0, 1.0), (1, 2.0)])]}, label=label, xlabel="step")

    ids = [set(re.findall(r'\sid="(.+?)"', draw(label))) for label in ("one", "two")]
    assert ids[0] and not ids[0] & ids[1]
    assert draw("one") == draw("one")


def test_thinned_points_are_means_of_stretches():
    points = [(float(i), 2.0 * i) for i in range(10)]
    assert thinned(points, 10) == points
    assert thinned(points, 4) == [(1.0, 2.0), (4.0, 8.0), (7.0, 14.0), (9.0, 18.0)]
