"""Where metrics go besides metrics.jsonl: Weights & Biases, or nowhere. Only rank 0 makes a tracker."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from cut_dist import durable
from cut_dist.lineage import redact

RUN_ID_FILE = "wandb_id.txt"
STEP_KEY = "train/global_step"

_INIT_TIMEOUT_S = 30  # the other ranks wait meanwhile

_ENVIRONMENT_MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline"}

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What the trainer reports to."""

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Sends named numbers that belong to an optimizer step."""

    def log_generations(self, rows: Sequence[dict[str, Any]], step: int) -> None:
        """Sends sample generations as a table; the first row's keys are its columns."""

    def finish(self, status: int = 0) -> None:
        """Flushes and closes. With an exit status other than 0 the run counts as failed, not as finished."""


class NoTracker:
    """Sends nothing: `tracker=none`, and what is left if W&B can't start."""

    def log(self, metrics: dict[str, Any], step: int) -> None: ...

    def log_generations(self, rows: Sequence[dict[str, Any]], step: int) -> None: ...

    def finish(self, status: int = 0) -> None: ...


class WandbTracker:
    """A W&B run that follows the run's folder: a resumed run continues the same W&B run.

    A failure after the start never reaches training: it is said once and W&B gets nothing more.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, metrics: dict[str, Any], step: int) -> None:
        # A metric and not W&B's own step, which refuses to go back when a run resumes from a checkpoint.
        self._send(lambda: self._run.log({**metrics, STEP_KEY: step}))

    def log_generations(self, rows: Sequence[dict[str, Any]], step: int) -> None:
        if not rows:
            return
        import wandb

        columns = ["step", *rows[0]]
        table = [[step, *(row.get(column) for column in columns[1:])] for row in rows]
        self._send(lambda: self._run.log({"eval/generations": wandb.Table(columns, table), STEP_KEY: step}))

    def finish(self, status: int = 0) -> None:
        self._send(lambda: self._run.finish(exit_code=status))
        self._run = None

    def _send(self, action: Callable[[], Any]) -> None:
        if self._run is None:
            return
        try:
            action()
        except Exception as error:
            self._run = None
            log.warning("W&B failed (%s) and gets nothing more; metrics.jsonl goes on", redact(str(error)))


def make_tracker(cfg: Any, run_dir: Path, config: dict[str, Any]) -> Tracker:
    """Starts the tracker that `cfg.name` picks.

    Args:
        cfg: the TrackerConfig: name, mode, project, entity, group, tags.
        run_dir: the run's folder; its W&B files go to `run_dir/wandb`.
        config: the composed configuration, shown with the run; secrets are blotted out.

    Raises:
        ValueError: an unknown name or mode. W&B's own failures are said and end in a NoTracker instead.
    """
    if cfg.name not in TRACKERS:
        raise ValueError(f"unknown tracker {cfg.name!r}: choose one of {', '.join(TRACKERS)}")
    return TRACKERS[cfg.name](cfg, run_dir, config)


def _start_wandb(cfg: Any, run_dir: Path, config: dict[str, Any]) -> Tracker:
    mode, reason = _wandb_mode(cfg.mode)
    if mode == "disabled":
        log.info("W&B is off for this run (%s); metrics.jsonl has everything", reason)
        return NoTracker()
    run_id = _stored_run_id(run_dir)
    for attempt in ("online", "offline") if mode == "online" else ("offline",):
        try:
            run = _init_wandb(cfg, run_dir, redact(config), run_id, attempt)
        except Exception as error:
            log.warning("W&B could not start %s: %s", attempt, redact(f"{type(error).__name__}: {error}"))
            _forget_failed_start()
            reason = f"{reason}, but online failed"
            continue
        log.info("W&B: %s (%s), run %s", attempt, reason, run_id)
        if attempt == "offline":
            log.info("W&B: to send it, wandb sync %s/wandb/offline-run-*", run_dir)
        return WandbTracker(run)
    log.warning("W&B IS OFF for this run; metrics.jsonl has everything. tracker=none does without it")
    return NoTracker()


def _forget_failed_start() -> None:
    """Ends W&B's helper process, which else refuses the same run id a second time."""
    try:
        import wandb

        wandb.teardown()
    except Exception as error:
        log.debug("W&B's teardown failed: %s", error)


def _init_wandb(cfg: Any, run_dir: Path, config: dict[str, Any], run_id: str, mode: str) -> Any:
    import wandb

    run = wandb.init(
        dir=run_dir,
        config=config,
        project=cfg.project,
        entity=cfg.entity,
        group=cfg.group or run_dir.parent.name,
        tags=list(cfg.tags),
        name=f"{run_dir.parent.name}/{run_dir.name}",
        id=run_id,
        resume="allow",
        mode=mode,
        # The command line and the console may hold what is nobody's business; lineage.json has the code.
        settings=wandb.Settings(
            quiet=True,
            silent=True,
            console="off",
            x_disable_meta=True,
            disable_git=True,
            disable_code=True,
            init_timeout=_INIT_TIMEOUT_S,
        ),
    )
    run.define_metric(STEP_KEY, hidden=True)
    run.define_metric("*", step_metric=STEP_KEY)
    return run


def _wandb_mode(mode: str) -> tuple[str, str]:
    """(online, offline or disabled, why)."""
    if mode not in ("auto", "online", "offline"):
        raise ValueError(f"unknown tracker.mode {mode!r}: choose auto, online or offline")
    asked = os.environ.get("WANDB_MODE", "").lower()
    if asked == "disabled":  # whoever switched W&B off for a machine or a shell means every run there
        return asked, "WANDB_MODE=disabled"
    if mode != "auto":
        return mode, f"tracker.mode={mode}"
    if asked in _ENVIRONMENT_MODES:
        return _ENVIRONMENT_MODES[asked], f"WANDB_MODE={asked}"
    if os.environ.get("WANDB_API_KEY"):
        return "online", "WANDB_API_KEY is set"
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    if _netrc_has(host):
        return "online", f"netrc knows {host}"
    return "offline", "no API key: neither WANDB_API_KEY nor netrc has one"


def _netrc_has(host: str | None) -> bool:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return host in netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def _stored_run_id(run_dir: Path) -> str:
    path = run_dir / RUN_ID_FILE
    if path.exists():
        return path.read_text().strip()
    run_id = secrets.token_hex(4)
    durable.replace_file(path, f"{run_id}\n".encode())
    return run_id


def _no_tracker(cfg: Any, run_dir: Path, config: dict[str, Any]) -> Tracker:
    return NoTracker()


TRACKERS: dict[str, Callable[[Any, Path, dict[str, Any]], Tracker]] = {
    "wandb": _start_wandb,
    "none": _no_tracker,
}
