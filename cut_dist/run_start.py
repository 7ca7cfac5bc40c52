"""How a run begins: a new folder, an unfinished run to continue, a finished one, or a refusal. Rank 0 decides."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cut_dist import checkpoint
from cut_dist.config import Config, identity, run_dir
from cut_dist.data.examples import Prepared
from cut_dist.metrics import MetricsError, read_metrics
from cut_dist.run_folder import (
    STOP_FILE,
    RunFolderError,
    RunLock,
    check_same_config,
    create_run_folder,
    read_finished,
)
from cut_dist.wording import counted

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Start:
    """How a run begins; the same on all ranks.

    Attributes:
        status: whether there is something to train ("fresh", "resumed") or not.
        message: one sentence for the log.
        folder: runs/<experiment>/<name>.
        step: optimizer steps done.
        checkpoint: the folder to load, if any.
        evaluated: the last evaluation that belongs to what is continued.
        bad_steps: how many steps before it were not finite, in a row: the patience of train.max_bad_steps goes on.
    """

    status: Literal["fresh", "resumed", "finished", "refused"]
    message: str
    folder: str = ""
    step: int = 0
    checkpoint: str | None = None
    evaluated: int | None = None
    bad_steps: int = 0

    @property
    def goes_on(self) -> bool:
        return self.status in ("fresh", "resumed")


def run_identity(cfg: Config, data: Prepared) -> dict[str, Any]:
    """What a continued run must share with this one: the configuration, and the data by its content."""
    return {**identity(cfg), "data_content": data.content_hash}


def open_run(cfg: Config, data: Prepared, world_size: int, held: ExitStack) -> Start:
    """Lock the run's folder and see what is in it. Rank 0 only.

    Args:
        held: gets the lock; closing it lets go of the folder.

    Returns:
        A refusal, rather than an exception, where the folder can't be used: the other ranks must hear of it.
    """
    try:
        return _open(cfg, data, world_size, held)
    except (RunFolderError, checkpoint.CheckpointError, MetricsError, OSError, ValueError) as error:
        return Start("refused", str(error))


def _open(cfg: Config, data: Prepared, world_size: int, held: ExitStack) -> Start:
    if cfg.run.resume == "never":
        moved = set_aside(run_dir(cfg))
        if moved:
            log.info("run.resume=never: the earlier run was moved to %s", moved)
    folder = create_run_folder(Path(cfg.run.root), cfg.run.experiment, cfg.run.name)
    held.enter_context(RunLock(folder))
    check_same_config(folder, run_identity(cfg, data))
    done = read_finished(folder)
    if done is not None:
        said = f"{folder} holds this run, finished after {counted(done['steps'], 'step')}: nothing to do but report"
        return Start("finished", said, str(folder))
    (folder / STOP_FILE).unlink(missing_ok=True)
    newest, reasons = checkpoint.newest_valid(folder / CHECKPOINTS)
    for reason in reasons:
        log.warning(reason)
    rows = read_metrics(folder / METRICS) if (folder / METRICS).exists() else []
    if newest is None:
        return Start("fresh", f"new run in {folder}", str(folder), evaluated=_evaluated(rows, 0))
    checkpoint.require_world_size(newest, world_size)
    step = checkpoint.read_manifest(newest)["step"]
    message = f"continuing {folder} after step {step}"
    return Start("resumed", message, str(folder), step, str(newest), _evaluated(rows, step), _bad_steps(rows, step))


def set_aside(folder: Path) -> Path | None:
    """Move an earlier run out of the way (`run.resume=never`); its folder becomes `<name>.previous-<n>`.

    Returns:
        Where it is now, or None if there was none.
    """
    if not folder.exists():
        return None
    taken = [re.fullmatch(rf"{re.escape(folder.name)}\.previous-(\d+)", p.name) for p in folder.parent.iterdir()]
    target = folder.with_name(f"{folder.name}.previous-{1 + max((int(m[1]) for m in taken if m), default=0)}")
    with RunLock(folder):
        folder.rename(target)
    return target


def _evaluated(rows: Sequence[Mapping[str, Any]], step: int) -> int | None:
    return max((row["step"] for row in rows if row["kind"] == "eval" and row["step"] <= step), default=None)


def _bad_steps(rows: Sequence[Mapping[str, Any]], step: int) -> int:
    skipped = [row["skipped"] for row in rows if row["kind"] == "train" and row["step"] <= step]
    return next((number for number, bad in enumerate(reversed(skipped)) if not bad), len(skipped))
