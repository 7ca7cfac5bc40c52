"""report.html of a study: what its sections say, what was tuned, what failed, what it was run on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cut_dist import charts
from cut_dist.study.cells import DESIGN, LABORATORY
from cut_dist.study.findings import percent
from cut_dist.study.names import name_of
from cut_dist.study.sections import TITLES, Section
from cut_dist.study.statistics import Interval
from cut_dist.web_page import REPORT_STYLE, document, escape, table

_TUNED = ("lr", "epochs", "lam", "gamma", "alpha", "beta")
_NAMES_LEFT = "th:first-child, td:first-child { text-align: left; }"


def figures(found: Mapping[str, Section]) -> dict[str, str]:
    """Name of a file → SVG element."""
    return {name: draw() for section in found.values() for name, draw in section.figures.items()}


def standalone(svg: str) -> str:
    """An SVG file out of an element of a page: with a name space, a ground and a font of its own."""
    style = '<rect width="100%" height="100%" fill="#fff"/><style>text { font-family: sans-serif; }</style>'
    head, rest = svg.split(">", 1)
    space = "" if "xmlns=" in head else ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f"{head}{space}>{style}{rest}"


def render(found: Mapping[str, Section], drawn: Mapping[str, str], numbers: Mapping[str, Any]) -> str:
    """The whole page as text; without matplotlib without its figures, and a word on how to get them."""
    parts = "".join(_section(section, drawn, _failed_note(part, numbers["failed"])) for part, section in found.items())
    note = "" if drawn else f'<p class="note">Figures need matplotlib: {escape(charts.REMEDY)}</p>'
    reasons = table(("cell", "why it failed"), numbers["failed"].items())
    failed = f'<div class="reasons">{reasons}</div>' if numbers["failed"] else "<p>None.</p>"
    about = {"settings": numbers["settings"], "machines": numbers["machines"]}
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd><code>{escape(json.dumps(value))}</code></dd>" for name, value in about.items()
    )
    intro = (
        "All parts but that of the real model are of a laboratory: a model of 1.1 million parameters, pretrained on a "
        "synthetic language of small tasks with bad habits, mistakes that it makes where a task has their trigger. "
        "Responses are its own, judged in varied English; some families of tasks are never judged and show damage. "
        "Means over seeds, as many as each row says, with 95 % intervals (Student's t); shares in per cent. Each seed "
        "has its own base model, instructions, samples and trainings. How it is made, what was found: docs/study.md."
    )
    tried = {name.split("/")[0] for name in numbers["failed"]}
    absent = [part for part in TITLES if part not in found and part not in tried]
    left_out = _absent(absent, len(numbers["missing"])) + _of_another_design(numbers["settings"])
    command = escape(shlex.join(["python", *numbers["command"]]))
    body = (
        f'<h1>Does it work?</h1><p class="dim">{escape(intro)}</p>{left_out}{note}{parts}'
        f"{_tuned(numbers['tuned'], numbers['tuning'])}<section><h2>Cells that failed</h2>{failed}</section>"
        f"<section><h2>What was run, on what</h2><dl><dt>last command</dt><dd><code>{command}</code></dd>{facts}</dl>"
        "</section>"
    )
    return document("cut_dist: does it work?", REPORT_STYLE + _NAMES_LEFT, body)


def _absent(parts: Sequence[str], cells: int) -> str:
    said = [f"Not measured yet: {', '.join(parts)}."] if parts else []
    said += [f"{cells} cells of the parts that were asked for are not made yet."] if cells else []
    return f'<p class="note">{escape(" ".join(said))}</p>' if said else ""


def _of_another_design(settings: Mapping[str, Any]) -> str:
    """A word on cells that the present code makes otherwise: the texts of the sections are of the present code."""
    design = settings.get(LABORATORY, {}).get("study", {}).get("design", DESIGN)
    if design == DESIGN:
        return ""
    said = f"The laboratory's numbers are of its design {design}; what the page says of how they are made, of {DESIGN}."
    return f'<p class="note">{escape(said)} docs/study.md has the differences.</p>'


# ---- pieces ----------------------------------------------------------------------------------------------------------


def _failed_note(part: str, failed: Mapping[str, str]) -> str:
    """A word on the cells that a part lacks, for a method none of whose trainings came to anything has no row."""
    names = [name for name in failed if name.startswith(f"{part}/")]
    return f'<p class="note">Failed, and in no row: {escape(", ".join(names))}.</p>' if names else ""


def _section(section: Section, drawn: Mapping[str, str], lost: str) -> str:
    measures = {m: head for m, head in section.columns.items() if any(m in row for row in section.rows.values())}
    perplexity = {
        m: head for m, head in (("perplexity_others", "perplexity, not judged"), ("perplexity", "perplexity"))
        if any(m in row for row in section.rows.values())
    }  # fmt: skip
    rows = [
        (name_of(what), *(percent(row[m]) if m in row else "–" for m in measures),
         *(_plain(row[m]) if m in row else "–" for m in perplexity),
         str(max((len(x.values) for x in row.values()), default=0)))
        for what, row in section.rows.items()
    ]  # fmt: skip
    said = "".join(f"<p>{escape(text)}</p>" for text in section.said)
    figure = "".join(drawn.get(name, "") for name in section.figures)
    shown = table(("", *measures.values(), *perplexity.values(), "seeds"), rows)
    head = f"<h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>"
    return f"<section>{head}{lost}{said}{figure}{shown}</section>\n"


def _tuned(recipes: Mapping[str, Any], tuning: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What each method was trained with: the best of its grid on the tuning laboratory."""
    if not recipes:
        return ""
    settings = {method: {**r["objective"], **r["train"]} for method, r in recipes.items()}
    keys = [key for key in _TUNED if any(key in own for own in settings.values())]
    rows = [
        (name_of(m), *(f"{own[k]:g}" if k in own else "–" for k in keys), *_choice(tuning.get(m, ())))
        for m, own in settings.items()
    ]
    head = ("", *keys, "score", "next best, score", "candidates", "at an edge of its grid")
    text = (
        "Of each method the candidate with the best greedy accuracy over all families (of the real model: instructions "
        "followed) on a laboratory that no result comes from. numbers.json has all of them."
    )
    return f"<section><h2>What the tuning chose</h2><p>{text}</p>{table(head, rows)}</section>\n"


def _choice(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Score, the next best, how many there were, and which keys ended at the least or most that was tried."""
    if not rows or rows[0]["score"] is None:
        return ("–",) * 4
    tried = {key: sorted({row[key] for row in rows if key in row}) for key in _TUNED}
    edges = [
        f"{key} ({'least' if rows[0][key] == values[0] else 'most'})"
        for key, values in tried.items()
        if len(values) > 1 and rows[0].get(key) in (values[0], values[-1])
    ]
    others = [f"{row['candidate']}, {100 * row['score']:.1f}" for row in rows[1:2] if row["score"] is not None]
    return f"{100 * rows[0]['score']:.1f}", *(others or ["–"]), str(len(rows)), ", ".join(edges) or "–"


def _plain(x: Interval) -> str:
    return f"{x.mean:.3f} [{x.low:.3f}, {x.high:.3f}]"
