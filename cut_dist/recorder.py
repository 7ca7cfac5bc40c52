"""Rank 0's book-keeping during a run: its metrics and tracker, the progress bar, the evaluations on disk."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cut_dist import checkpoint, durable
from cut_dist.config import Config
from cut_dist.data.examples import Example, Prepared
from cut_dist.evaluate import TokenRecord, reference_tokens, summarise
from cut_dist.lineage import finish_lineage, model_record, parent_run, read_lineage, write_lineage
from cut_dist.metrics import MetricsLog
from cut_dist.model.resolve import resolve_model
from cut_dist.online.provenance import provenance
from cut_dist.run_folder import STOP_FILE, mark_finished, write_config
from cut_dist.run_start import METRICS, Start, run_identity
from cut_dist.tracker import TrackedRun, make_tracker
from cut_dist.wording import counted

if TYPE_CHECKING:
    from cut_dist.engine.launch import Ranks
    from cut_dist.model.head import CutModel

log = logging.getLogger(__name__)

EVALUATIONS = "evaluations"
REFERENCE = "inappropriate_first.json"


class Recorder:
    """Writes down what a run does; made on rank 0 only, for a start that goes on.

    Attributes:
        folder: runs/<experiment>/<name>.
    """

    def __init__(self, cfg: Config, data: Prepared, start: Start, world_size: int):
        self.cfg, self.folder = cfg, Path(start.folder)
        self._progress: Progress | None = None
        self._open = ExitStack()  # what `close` closes, last opened first
        composed = dataclasses.asdict(cfg)
        write_config(self.folder, composed, run_identity(cfg, data))
        self._write_lineage(data, start, world_size)
        self._write_rejects(data)
        self.metrics = self._open.enter_context(MetricsLog(self.folder / METRICS))
        dropped = self.metrics.truncate_after(start.step)
        if dropped:
            log.info("%s after step %d will be made again", counted(dropped, "record"), start.step)
        followed = TrackedRun(self.folder, composed, read_lineage(self.folder) or {}, start.step)
        self.tracker = make_tracker(cfg.tracker, followed)

    def _write_lineage(self, data: Prepared, start: Start, world_size: int) -> None:
        model = self.cfg.model
        if model.random_init is not None:
            record, parent = {"name": "random_init", "sizes": dict(model.random_init), "seed": self.cfg.seed}, None
        else:
            path = resolve_model(model.name_or_path, model.revision)
            record, parent = {**model_record(path, model.revision), "name": model.name_or_path}, parent_run(path)
        made_by = provenance(Path(self.cfg.data.path))  # an online round's triplets: judge, responses, instructions
        described = {
            "path": self.cfg.data.path, "content_hash": data.content_hash, "counts": data.counts, "made_by": made_by,
        }  # fmt: skip
        write_lineage(
            self.folder,
            model=record,
            data=described,
            world_size=world_size,
            argv=sys.argv,
            parent=parent,
            resumed_from=start.checkpoint and Path(start.checkpoint).name,
        )

    def _write_rejects(self, data: Prepared) -> None:
        if data.rejects:
            lines = "".join(json.dumps(dataclasses.asdict(r), default=str) + "\n" for r in data.rejects)
            durable.replace_file(self.folder / "rejects.jsonl", lines.encode())

    def describe(self, data: Prepared, total: int, warmup: int, ranks: Ranks, model: CutModel) -> None:
        """Say what is about to be trained on what, and whether the learning rate will get where it should."""
        counts = f"{counted(len(data.train), 'triplet')} to train on, {len(data.heldout)} held out"
        dtype = str(model.causal_lm.dtype).removeprefix("torch.")
        log.info("%s; steps: %d; ranks: %d; %s, attention: %s", counts, total, ranks.world_size, dtype, model.attention)
        if warmup >= total:
            reached, peak = self.cfg.train.lr * (total - 1) / warmup, self.cfg.train.lr
            text = "the warm-up of %d steps outlasts the run's %d: lr rises to %.1e and never reaches train.lr=%.1e"
            remedy = "lower train.warmup_steps or train.warmup_ratio if that is not meant"
            log.warning(f"{text}; {remedy}", warmup, total, reached, peak)

    def begin_progress(self, step: int, total: int) -> None:
        """Show a bar where there is a terminal; elsewhere each step is a log line."""
        console = Console(stderr=True)  # where the log lines go
        if console.is_terminal:
            # 20 cells and a short description: all of it fits into 80 columns, beyond which rich cuts
            columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, TextColumn("{task.description}"), console=console)
            self._task = self._progress.add_task("", total=total, completed=step)
            plain = sys.stderr
            self._open.enter_context(self._progress)
            self._log_above_the_bar(plain)

    def _log_above_the_bar(self, plain: TextIO) -> None:
        """Let log lines go where rich now has sys.stderr go; a handler keeps the `plain` one that it was made with."""
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is plain:
                handler.setStream(sys.stderr)
                self._open.callback(handler.setStream, plain)

    def step(self, record: dict[str, Any], total: int) -> None:
        """One finished optimizer step: metrics.jsonl, tracker, and the bar or a line."""
        self.metrics.append({"kind": "train", **record})
        self.tracker.log({f"train/{k}": v for k, v in record.items() if k != "step"}, record["step"])
        loss, speed = f"loss {record['loss']:.4f}", f"{record['tokens_per_s']:.0f} tok/s"
        if self._progress:
            self._progress.update(self._task, completed=record["step"], description=f"{loss}  {speed}")
        else:
            p = f"{record['p_inappropriate']:.3f}" if record["share_inappropriate"] else "–"
            log.info(
                "step %d/%d  %s  p(inappropriate) %s  lr %.2e  %s", record["step"], total, loss, p, record["lr"], speed
            )

    def not_finite(self, step: int, batch: Sequence[Example]) -> None:
        """Name the rows of a step that no rank took."""
        names = ", ".join(example.id for example in batch)
        log.warning("step %d: a loss or gradient was not finite, so no rank updated. Its rows: %s", step, names)

    def giving_up(self, bad_steps: int, saved: int) -> None:
        """Say why the run ends here and what to do."""
        rest = f"The last checkpoint is of step {saved}" if saved else "There is no checkpoint yet"
        remedy = "Lower train.lr, or look at the rows named above: launch/preview.py preview.ids=[...]"
        log.error("not finite: %s in a row, so giving up. %s. %s", counted(bad_steps, "step"), rest, remedy)

    def evaluation(
        self, step: int, splits: dict[str, Sequence[TokenRecord]], generations: list[dict], tokens: list[dict],
        own: dict[str, dict[str, float]],
    ) -> None:  # fmt: skip
        """One evaluation: evaluations/step_*.json, metrics.jsonl and tracker.

        Args:
            step: optimizer steps done.
            splits: "heldout" and "train" to their records.
            generations: as `evaluate.generate` returns them.
            tokens: as `evaluate.judged_tokens` returns them; for the tracker alone.
            own: by split, metrics of an objective that is measured apart, in place of CUT's loss; empty under CUT.
        """
        folder = self.folder / EVALUATIONS
        folder.mkdir(exist_ok=True)
        reference = reference_tokens(folder / REFERENCE, [r for records in splits.values() for r in records])
        metrics = {split: summarise(records, reference) for split, records in splits.items() if records}
        for split, numbers in own.items():
            others = {key: value for key, value in metrics.get(split, {}).items() if key != "loss"}
            metrics |= {split: numbers | others} if numbers or others else {}
        content = {"step": step, "objective": self.cfg.objective.name, "metrics": metrics, "generations": generations}
        durable.replace_file(folder / f"{checkpoint.tag_of(step)}.json", json.dumps(content, indent=1).encode())
        flat = {f"{split}/{key}": value for split, summary in metrics.items() for key, value in summary.items()}
        self.metrics.append({"kind": "eval", "step": step, **flat})
        self.tracker.log({f"eval/{key}": value for key, value in flat.items()}, step)
        self.tracker.log_table("generations", generations, step)
        self.tracker.log_table("judged_tokens", tokens, step)
        for split, summary in metrics.items():
            log.info("%s at step %d: %s", split, step, "  ".join(f"{k} {v:.4f}" for k, v in summary.items()))

    def stop_asked(self) -> bool:
        """Whether someone touched the run's STOP file."""
        return (self.folder / STOP_FILE).exists()

    def finish(self, steps: int) -> None:
        """Mark the run as finished, the last of its own records."""
        finish_lineage(self.folder)
        mark_finished(self.folder, {"steps": steps})
        if self.cfg.run.export:
            self.tracker.log_model(self.folder / "model")  # after all else: it may have to wait for a network

    def close(self, status: int) -> None:
        """Close metrics, tracker and bar; `status` is the run's exit status, which W&B shows."""
        self._open.close()
        self.tracker.finish(status)


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """All evaluations of the run in `folder`, the oldest first."""
    return [json.loads(path.read_text()) for path in sorted((folder / EVALUATIONS).glob("step_*.json"))]
