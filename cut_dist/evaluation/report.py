"""An evaluation as a table on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what evaluation.json holds: a line for each number that a suite stands for, and commands to go on with."""
    console = console or Console()
    table = Table("suite", "measure", title=_title(content["model"]), title_justify="left")
    table.add_column("value", justify="right")
    table.add_column("of")
    for suite, found in content["suites"].items():
        for measure, value, of in _LINES[suite](found):
            table.add_row(suite, Text(measure), value, Text(of))
    console.print(table)
    command = content["suites"].get("alpaca_eval", {}).get("command")
    if command:
        console.print(Text("AlpacaEval's score, from an environment of its own (docs/evaluation.md):"))
        console.print(Text(f"  {command}"), soft_wrap=True)


def _title(model: Mapping[str, Any]) -> Text:
    return Text(str(model.get("name") or "a model with random weights"))


Lines = Iterator[tuple[str, str, str]]


def _verifiable(found: Mapping[str, Any]) -> Lines:
    of = f"{found['instructions']} instructions{_truncated(found)}"
    yield "strict", f"{found['strict']:.1%}", of
    yield "loose", f"{found['loose']:.1%}", of
    yield "checks, strict", f"{found['check_strict']:.1%}", f"{found['checks']} checks"
    yield "checks, loose", f"{found['check_loose']:.1%}", f"{found['checks']} checks"


def _alpaca_eval(found: Mapping[str, Any]) -> Lines:
    yield found["file"], "", f"{found['answers']} answers{_truncated(found)}"


def _lm_eval(found: Mapping[str, Any]) -> Lines:
    for task, score in found["tasks"].items():
        shots = "" if score["shots"] is None else f", {score['shots']}-shot"
        error = "" if score["error"] is None else f" ±{score['error']:.1%}"
        asked = "" if score["questions"] is None else f"{score['questions']} questions"
        yield f"{task} {score['metric']}{shots}", f"{score['value']:.1%}{error}", asked
    if len(found["tasks"]) > 1:
        yield "average", f"{found['average']:.1%}", f"{len(found['tasks'])} tasks"


def _rouge(found: Mapping[str, Any]) -> Lines:
    of = f"{found['answers']} answers against the {found['reference']}{_truncated(found)}"
    for measure in ("R1", "R2", "RL", "RLsum"):
        yield measure, f"{found[measure]:.2f}", of


def _win_rate(found: Mapping[str, Any]) -> Lines:
    counts = f"{found['wins']} won, {found['ties']} tied ({found['inconsistent']} by order), {found['losses']} lost"
    undecided = f", {found['undecided']} without verdict" if found["undecided"] else ""
    if found["win_rate"] is None:
        yield f"against {found['rival']}", "none", counts + undecided
        return
    value = f"{found['win_rate']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
    yield f"against {found['rival']}, judge {found['judge']}", value, counts + undecided


def _truncated(found: Mapping[str, Any]) -> str:
    return f", {found['truncated']} cut off" if found["truncated"] else ""


_LINES = {
    "verifiable": _verifiable,
    "alpaca_eval": _alpaca_eval,
    "lm_eval": _lm_eval,
    "rouge": _rouge,
    "win_rate": _win_rate,
}
