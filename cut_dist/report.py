"""What a run changed, in one table at its end: held-out numbers and generations before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cut_dist.run_folder import read_finished
from cut_dist.wording import counted

SPLITS = {"heldout": "held-out", "train": "training"}
ROWS = {  # key of evaluate.summarise → what it is called for a reader
    "loss": "loss, L1 + L2",
    "nll_instruction": "−log p, instruction context",
    "nll_align_p": "  of Align-P responses",
    "nll_authentic": "−log p, authentic context",
    "nll_fake": "−log p, fake context",
    "p_inappropriate_now": "p of inappropriate tokens",
    "p_inappropriate": "p of those detected first",
    "p_others": "p of all other tokens of Align-N",
    "p_align_p": "p of all tokens of Align-P",
    "share_inappropriate": "share of inappropriate tokens",
    "reward_margin": "margin of the rewards",
    "reward_accuracy": "chosen above rejected, share",
}
LEGEND = (
    "Loss and −log p are means over examples, p and share over tokens, in the instruction context. Inappropriate: as "
    "the model of that column detects; “detected first”: by the first evaluation, the same tokens in both columns.\n"
)


def show(folder: Path, evaluations: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """Print the first evaluation of a run beside the last, what lies where, and whether the run is finished.

    Args:
        folder: the run's folder.
        evaluations: as `recorder.read_evaluations` returns them, oldest first; nothing is compared if there are fewer
            than two.
        console: where to print; the terminal by default.
    """
    console = console or Console()
    if len(evaluations) >= 2:
        before, after = evaluations[0], evaluations[-1]
        console.print(_numbers(before, after))
        console.print(LEGEND)
        for old, new in zip(before["generations"], after["generations"]):
            console.print(_generation(old, new))
    for what, path in (("model", "model"), ("metrics", "metrics.jsonl"), ("checkpoints", "checkpoints")):
        if (folder / path).exists():
            console.print(f"{what:12}{folder / path}", soft_wrap=True, highlight=False, markup=False)
    console.print(_state(folder), soft_wrap=True, highlight=False, markup=False)


def _state(folder: Path) -> str:
    """Whether the run is at its end, and what the same command would do: the last line, which stays in sight."""
    done = read_finished(folder)
    if done is None:
        return f"{'unfinished':12}the same command continues this run"
    return f"{'finished':12}after {counted(done['steps'], 'step')}; run.resume=never trains anew, run.name=… beside it"


def _numbers(before: dict[str, Any], after: dict[str, Any]) -> Table:
    table = Table(title=f"Before and after {counted(after['step'], 'step')}", title_justify="left")
    table.add_column("")
    for split in before["metrics"]:
        for column in (f"{SPLITS[split]}\nbefore", "\nafter"):
            table.add_column(column, justify="right", no_wrap=True)
    labels = ROWS if after.get("objective", "cut") == "cut" else {**ROWS, "loss": f"loss of {after['objective']}"}
    for key, label in labels.items():
        values = [e["metrics"].get(split, {}).get(key) for split in before["metrics"] for e in (before, after)]
        if any(value is not None for value in values):
            table.add_row(label, *("" if value is None else f"{value:.3f}" for value in values))
    return table


def _generation(before: dict[str, str], after: dict[str, str]) -> Table:
    title = f"Greedy answer to {escape(before['id'])}"
    table = Table(title=title, title_justify="left", show_lines=True, show_header=False)
    table.add_row("prompt", escape(before["prompt"].strip()))
    table.add_row("before", escape(before["response"]))
    table.add_row("after", escape(after["response"]))
    return table
