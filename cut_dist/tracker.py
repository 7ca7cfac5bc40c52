"""Where metrics go besides metrics.jsonl: Weights & Biases, TensorBoard, or nowhere. Only rank 0 makes a tracker."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cut_dist.config import ConfigError, TrackerConfig
from cut_dist.lineage import redact

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of the run that it follows.

    Attributes:
        folder: runs/<experiment>/<name>; a tracker's own files go into a folder of it.
        config: the composed configuration.
        lineage: as `read_lineage` returns it; {} where there is none.
        step: optimizer steps done before this start.
    """

    folder: Path
    config: dict[str, Any]
    lineage: dict[str, Any]
    step: int = 0


class Tracker:
    """What the trainer reports to. This one sends nothing: `tracker=none`, and what is left if W&B can't start."""

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Sends named numbers that belong to an optimizer step."""

    def log_table(self, name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
        """Sends rows as the table `name`; the first row's keys are its columns, after the step."""

    def log_model(self, folder: Path) -> None:
        """Names the exported model in `folder` as what this run made; its weights go along only if asked for."""

    def finish(self, status: int = 0) -> None:
        """Flushes and closes. With an exit status other than 0 the run counts as failed, not as finished."""


class GuardedTracker(Tracker):
    """A tracker whose first failure ends it, said once, and never reaches training."""

    def __init__(self, name: str, client: Any) -> None:
        self._name, self._client = name, client

    def _send(self, action: Callable[[Any], Any]) -> None:
        if self._client is None:
            return
        try:
            action(self._client)
        except Exception as error:
            self._client = None
            text = redact(str(error))
            log.warning("%s failed (%s) and gets nothing more; metrics.jsonl goes on", self._name, text)


def make_tracker(cfg: TrackerConfig, run: TrackedRun) -> Tracker:
    """Starts the tracker that `cfg.name` picks.

    Raises:
        ConfigError: TensorBoard is asked for and not installed. W&B's own failures are said and end in a `Tracker`
            that sends nothing instead.
    """
    require_tracker(cfg)
    if cfg.name == "wandb":
        from cut_dist.tracker_wandb import start_wandb

        return start_wandb(cfg, run)
    if cfg.name == "tensorboard":
        from cut_dist.tracker_tensorboard import start_tensorboard

        return start_tensorboard(run)
    return Tracker()


def require_tracker(cfg: TrackerConfig) -> None:
    """Raise a ConfigError where the tracker asked for is not installed; costs no import of it.

    W&B is a requirement of this package, so its absence is an accident that should not cost a run.
    """
    if cfg.name == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "tracker=tensorboard needs the package tensorboard, which is not installed: pip install tensorboard, "
            "or choose tracker=wandb or tracker=none."
        )
