"""TensorBoard: event files in the run's folder, which a continued run continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from cut_dist.lineage import redact
from cut_dist.tracker import GuardedTracker, TrackedRun

FOLDER = "tensorboard"


def start_tensorboard(run: TrackedRun) -> TensorBoardTracker:
    """Opens `<run>/tensorboard`. What an earlier start wrote of steps after `run.step` is no longer shown."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(run.folder / FOLDER, purge_step=run.step + 1)
    tracker = TensorBoardTracker("TensorBoard", writer)
    tracker.log_config(run)
    return tracker


class TensorBoardTracker(GuardedTracker):
    """Numbers as scalars, tables and the configuration as text."""

    def log_config(self, run: TrackedRun) -> None:
        text = yaml.safe_dump(redact(run.config), sort_keys=False, allow_unicode=True)
        code = "".join(f"    {line}\n" for line in text.splitlines())  # Markdown: a block of code
        self._send(lambda writer: writer.add_text("config", code, run.step))

    def log(self, metrics: dict[str, Any], step: int) -> None:
        def send(writer: Any) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)
            writer.flush()  # so that a reader, or a kill, finds each step

        self._send(send)

    def log_table(self, name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
        if rows:
            self._send(lambda writer: writer.add_text(f"eval/{name}", _markdown(rows), step))

    def finish(self, status: int = 0) -> None:
        self._send(lambda writer: writer.close())
        self._client = None


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    """A value that can't end its cell, its row or, where TensorBoard shows it as HTML, its text."""
    text = "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("`", "&#96;"), ("*", "&#42;")):
        text = text.replace(character, entity)
    return text.replace("\n", "⏎")
