"""Weights & Biases: one run of its own for each run's folder, offline without a key or a network."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from cut_dist import durable
from cut_dist.config import TrackerConfig
from cut_dist.lineage import redact
from cut_dist.tracker import GuardedTracker, TrackedRun, Tracker
from cut_dist.tracker_artifacts import RUN_ID_FILE, data_artifact, input_model, output_model, weights_artifact

STEP_KEY = "train/global_step"

_INIT_TIMEOUT_S = 30  # the other ranks wait meanwhile
_TAG_LENGTH = 64  # W&B's own limit

_ENVIRONMENT_MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline"}

log = logging.getLogger(__name__)


class WandbTracker(GuardedTracker):
    """A W&B run that follows the run's folder: a resumed run continues the same W&B run."""

    def __init__(self, client: Any, cfg: TrackerConfig, run: TrackedRun) -> None:
        super().__init__("W&B", client)
        self._cfg, self._run = cfg, run

    def log(self, metrics: dict[str, Any], step: int) -> None:
        # A metric and not W&B's own step, which refuses to go back when a run resumes from a checkpoint.
        self._send(lambda client: client.log({**metrics, STEP_KEY: step}))

    def log_table(self, name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
        if not rows:
            return
        import wandb

        columns = ["step", *rows[0]]
        table = [[step, *(row.get(column) for column in columns[1:])] for row in rows]
        self._send(lambda client: client.log({f"eval/{name}": wandb.Table(columns, table), STEP_KEY: step}))

    def log_inputs(self) -> None:
        """Names data and model as what this run takes; the triplets' files go along with `tracker.log_data`."""
        self._link(lambda client: _use(client, data_artifact(self._run, with_files=self._cfg.log_data)))
        self._link(lambda client: _use(client, input_model(self._run)))

    def log_model(self, folder: Path) -> None:
        self._link(lambda client: client.log_artifact(output_model(self._run, folder)))
        if self._cfg.log_model:
            self._link(lambda client: client.log_artifact(weights_artifact(self._run, folder)))

    def finish(self, status: int = 0) -> None:
        self._send(lambda client: client.finish(exit_code=status))
        self._client = None

    def _link(self, action: Callable[[Any], Any]) -> None:
        """As `_send`; but a failure costs an artifact only, and the metrics go on."""
        if self._client is None:
            return
        try:
            action(self._client)
        except Exception as error:
            log.warning("W&B took no artifact: %s", redact(f"{type(error).__name__}: {error}"))


def _use(client: Any, artifact: Any) -> None:
    # What run.use_artifact does with a new artifact, less its two obstacles: that one waits for the upload, while all
    # ranks wait for this one, and refuses offline runs.
    client._log_artifact(artifact, is_user_created=True, use_after_commit=True)


def start_wandb(cfg: TrackerConfig, run: TrackedRun) -> Tracker:
    """Starts W&B, or continues the W&B run that this folder has; a `Tracker` that sends nothing where it can't."""
    mode, reason = _wandb_mode(cfg.mode)
    if mode == "disabled":
        log.info("W&B is off for this run (%s); metrics.jsonl has everything", reason)
        return Tracker()
    run_id = _stored_run_id(run.folder)
    for attempt in ("online", "offline") if mode == "online" else ("offline",):
        try:
            client = _init_wandb(cfg, run, run_id, attempt)
        except Exception as error:
            log.warning("W&B could not start %s: %s", attempt, redact(f"{type(error).__name__}: {error}"))
            _forget_failed_start()
            reason = f"{reason}, but online failed"
            continue
        log.info("W&B: %s (%s), run %s", attempt, reason, run_id)
        if attempt == "offline":
            log.info("W&B: to send it, wandb sync %s/wandb/offline-run-*", run.folder)
        tracker = WandbTracker(client, cfg, run)
        tracker.log_inputs()
        return tracker
    log.warning("W&B IS OFF for this run; metrics.jsonl has everything. tracker=none does without it")
    return Tracker()


def _forget_failed_start() -> None:
    """Ends W&B's helper process, which else refuses the same run id a second time."""
    try:
        import wandb

        wandb.teardown()
    except Exception as error:
        log.debug("W&B's teardown failed: %s", error)


def _init_wandb(cfg: TrackerConfig, run: TrackedRun, run_id: str, mode: str) -> Any:
    import wandb

    folder = run.folder
    client = wandb.init(
        dir=folder,
        config=redact({**run.config, **_facts(run.lineage)}),
        project=cfg.project,
        entity=cfg.entity,
        group=cfg.group or folder.parent.name,
        job_type="train",
        tags=_tags(cfg, run),
        name=f"{folder.parent.name}/{folder.name}",
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
    client.define_metric(STEP_KEY, hidden=True)
    client.define_metric("*", step_metric=STEP_KEY)
    return client


def _facts(lineage: dict[str, Any]) -> dict[str, Any]:
    """What the configuration lacks to be complete: what its names stood for when the run started."""
    if not lineage:
        return {}
    start, data = lineage["starts"][-1], lineage["data"]
    return {
        "lineage": {
            "data": {"content_hash": data["content_hash"], "counts": data["counts"]},
            "parent": (lineage["parent"] or {}).get("run"),
            **{key: start[key] for key in ("world_size", "python", "code", "packages")},
        }
    }


def _tags(cfg: TrackerConfig, run: TrackedRun) -> list[str]:
    """The configured tags, then the objective, the contrast and the model that training starts from."""
    objective = run.config.get("objective", {})
    parent, model = run.lineage.get("parent"), run.lineage.get("model", {})
    start = parent["run"] if parent else Path(model.get("name", "")).name
    contrast, without = (objective.get(key) and f"{key}-{objective[key]}" for key in ("contrast", "without"))
    automatic = [objective.get("name"), contrast, without, start]
    return list(dict.fromkeys([*cfg.tags, *(tag[:_TAG_LENGTH] for tag in automatic if tag)]))


def _wandb_mode(mode: str) -> tuple[str, str]:
    """(online, offline or disabled, why)."""
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
