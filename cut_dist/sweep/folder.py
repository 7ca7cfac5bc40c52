"""A sweep's folder: what was planned, and what became of each job.

sweeps/<name>/
    sweep.json       the command, the swept values, the jobs
    identity.json    the configuration that all its jobs share
    .lock            held by the process that runs the sweep
    STOP             touch it: the running jobs save and stop, none is started
    <job>/           a run's folder, and
        composed.yaml   the configuration that the job is started with
        job.json        its status, exit code and reason
        console.log     what it printed (console.rank<r>.log: another rank that failed)
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cut_dist import durable
from cut_dist.config import Config, ConfigError
from cut_dist.lineage import redact
from cut_dist.run_folder import (
    IDENTITY_FILE,
    STOP_FILE,
    check_same_config,
    create_run_folder,
    now,
    read_finished,
)
from cut_dist.run_identity import identity
from cut_dist.sweep.plan import Job, Sweep, command_line

SWEEP_FILE, JOB_FILE = "sweep.json", "job.json"
COMPOSED_FILE, CONSOLE_FILE = "composed.yaml", "console.log"


def create_folders(sweep: Sweep) -> None:
    """Make the folders of a sweep and its jobs; those that are there stay.

    Raises:
        RunFolderError: a name leads out of the sweep's root through a symbolic link.
    """
    for job in sweep.jobs:
        create_run_folder(Path(sweep.settings.root), sweep.name, job.name)


def record_plan(sweep: Sweep) -> None:
    """Write sweep.json and each job's composed.yaml; the caller holds the sweep's lock.

    A sweep may grow: jobs of earlier starts stay listed, new ones follow. Other keys, or another configuration
    around them, is another sweep.

    Raises:
        ConfigError: the folder belongs to a sweep over other keys.
        RunFolderError: the jobs' common configuration differs from that of the first start; it names the keys.
    """
    (sweep.folder / STOP_FILE).unlink(missing_ok=True)
    stored = _read(sweep.folder / SWEEP_FILE) or {"swept": {key: [] for key in sweep.swept}, "jobs": []}
    if set(stored["swept"]) != set(sweep.swept):
        keys, others = ", ".join(sweep.swept), ", ".join(stored["swept"])
        raise ConfigError(f"{sweep.folder} is a sweep over {others}, not over {keys}: choose another sweep.name.")
    common = common_identity(sweep.jobs[0].cfg, sweep.swept)
    check_same_config(sweep.folder, common, "choose another sweep.name")
    durable.replace_file(sweep.folder / IDENTITY_FILE, _json(common))
    jobs = stored["jobs"]
    known = {job["name"] for job in jobs}
    for job in sweep.jobs:
        if job.name not in known:
            jobs.append({"index": len(jobs), "name": job.name, "overrides": job.overrides})
        composed = yaml.safe_dump(dataclasses.asdict(job.cfg), sort_keys=False, allow_unicode=True)
        durable.replace_file(job.folder / COMPOSED_FILE, composed.encode())
    swept = {key: list(dict.fromkeys([*stored["swept"][key], *sweep.swept[key]])) for key in sweep.swept}
    ranked_by = {"metric": sweep.settings.metric, "direction": sweep.settings.direction}
    content = {"name": sweep.name, "command": redact(command_line()), "swept": swept, **ranked_by, "jobs": jobs}
    durable.replace_file(sweep.folder / SWEEP_FILE, _json(content))


def common_identity(cfg: Config, swept: Iterable[str]) -> dict[str, Any]:
    """What all jobs of a sweep share: `run_identity.identity` without the swept keys, groups as a whole."""
    tree = identity(cfg)
    for key in swept:
        *parents, last = key.partition("@")[0].replace("/", ".").split(".")
        branch = tree
        for parent in parents:
            branch = branch.get(parent, {})
        branch.pop(last, None)
    return {} if "experiment" in swept else tree


def skip_finished(job: Job) -> bool:
    """Whether a job has trained to its end already; job.json then says so, even if its sweep was killed before."""
    if read_finished(job.folder) is None:
        return False
    record = read_job(job.folder)
    if record and record["status"] != "finished":
        settled = record | {"status": "finished", "exit_code": 0, "reason": None}
        durable.replace_file(job.folder / JOB_FILE, _json(settled))
    return True


def stop_asked(sweep_folder: Path) -> bool:
    """Whether someone touched the sweep's STOP file."""
    return (sweep_folder / STOP_FILE).exists()


class JobRecord:
    """job.json of one job while it runs; the results of a sweep are read from it.

    Args:
        job: whose folder it lies in.
        ranks: how many processes it has.
    """

    def __init__(self, job: Job, ranks: int):
        self.job, self._began = job, time.monotonic()
        index = next(j["index"] for j in _read(job.folder.parent / SWEEP_FILE)["jobs"] if j["name"] == job.name)
        self._content = {"index": index, "overrides": job.overrides, "started": now(), "ranks": ranks}
        self._write("running", None, None, 0.0)

    def ended(self, status: str, exit_code: int | None, reason: str | None) -> float:
        """Record how it ended ("finished", "failed" or "stopped"); returns its seconds."""
        seconds = time.monotonic() - self._began
        self._write(status, exit_code, reason, seconds)
        return seconds

    def _write(self, status: str, exit_code: int | None, reason: str | None, seconds: float) -> None:
        written = {"status": status, "exit_code": exit_code, "reason": reason, "seconds": round(seconds, 1)}
        durable.replace_file(self.job.folder / JOB_FILE, _json(self._content | written))


def record_lost(job: Job, status: str, reason: str) -> dict[str, Any]:
    """End the record of a job whose own process could not; returns job.json."""
    record = read_job(job.folder) | {"status": status, "reason": reason}
    durable.replace_file(job.folder / JOB_FILE, _json(record))
    return record


def read_job(folder: Path) -> dict[str, Any] | None:
    """job.json of a job's folder; None before the job's first start."""
    return _read(folder / JOB_FILE)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}): choose another sweep.name.") from error


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
