"""A run's folder: made inside its root, held by one process, tied to one configuration, marked when finished.

runs/<experiment>/<name>/
    config.yaml     the composed configuration, for people
    identity.json   the part of it that a resumed run must share
    .lock           held (flock) by rank 0 of the run that is going on
    STOP            touch it: checkpoint, then stop cleanly
    ranks/          signs of life while it goes on, and of what became of the ranks if it ended badly
    finished.json   written last of all
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from cut_dist import durable
from cut_dist.config_check import NAME_RULE, is_name
from cut_dist.wording import UserError

STOP_FILE = "STOP"
CONFIG_FILE = "config.yaml"
IDENTITY_FILE = "identity.json"
FINISHED_FILE = "finished.json"
LOCK_FILE = ".lock"
_OTHER_RUN = "choose another run.name, or start anew with run.resume=never"

log = logging.getLogger(__name__)


class RunFolderError(UserError, RuntimeError):
    """A run's folder can't be used as asked; the message says why and what to do."""


def create_run_folder(root: Path, experiment: str, name: str) -> Path:
    """Makes `root/<experiment>/<name>` if need be.

    Returns:
        Its resolved path, which lies inside the resolved `root`.

    Raises:
        RunFolderError: a name is none by `is_name`, or leads out of `root` through a symbolic link, or the folder
            can't be made.
    """
    for what, value in (("experiment", experiment), ("name", name)):
        if not is_name(value):
            raise RunFolderError(f"run.{what}={value!r} is no folder's name: it must be {NAME_RULE}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        inside = root.resolve()
        folder = inside
        for part in (experiment, name):
            folder = folder / part
            # Resolved before it is made, so that nothing is ever created outside.
            if not folder.resolve().is_relative_to(inside):
                raise RunFolderError(f"{folder} is a link out of {inside}; remove it or choose another name")
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"run.root={root}: {error.filename} can't be made ({error.strerror}); choose a folder that can be written"
        ) from error
    return folder.resolve()


class RunLock:
    """Holds a run's folder for one process, by flock on `.lock`; a context manager.

    The kernel lets go when the holder dies, however it dies, so there is no stale lock to break. If the last
    holder did not release it, a warning says so. Other hosts: NFSv4, GPFS and Lustre mounted with `flock` refuse
    a second holder there too; where flock is local to a host (Lustre's `localflock`), only this host is guarded;
    where there is no flock, the start is refused.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> RunLock:
        """Takes the lock at once or raises RunFolderError naming the holder's host, process and start."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise RunFolderError(
                    f"{self.path} can't be locked ({error.strerror}): put run.root where flock works"
                ) from error
            raise RunFolderError(
                f"{self.path.parent} is in use by {holder or 'another process'}. Wait for that run, stop it "
                f"(touch {self.path.parent / STOP_FILE}), or choose another run.name"
            ) from error
        previous = _holder(descriptor)
        if previous:
            log.warning("took over %s from %s, which ended without releasing it", self.path.parent, previous)
        self._descriptor = descriptor
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": now()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        return self

    def release(self) -> None:
        """Lets go; the empty file stays, because removing a lock file is a race."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> RunLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def write_config(folder: Path, config: dict[str, Any], identity: dict[str, Any]) -> None:
    """Writes config.yaml and, for later starts, what they must share with this one."""
    durable.replace_file(folder / IDENTITY_FILE, _json(identity))
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    durable.replace_file(folder / CONFIG_FILE, text.encode())


def check_same_config(folder: Path, identity: dict[str, Any], otherwise: str = _OTHER_RUN) -> None:
    """Passes for a new folder and for one made with the same identity; `otherwise` is what else one can do.

    Raises:
        RunFolderError: naming each key that differs, old → new.
    """
    path = folder / IDENTITY_FILE
    if not path.exists():
        if (folder / CONFIG_FILE).exists():
            raise RunFolderError(
                f"{path} is missing, so this start can't be compared: choose another run.name"
            )
        return
    try:
        stored = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}): choose another run.name") from error
    changes = config_changes(stored, identity)
    if changes:
        raise RunFolderError(
            f"{folder} was started with another configuration:\n  "
            + "\n  ".join(changes)
            + f"\nSet these back to continue it, or {otherwise}"
        )


def config_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Each dotted key that differs between two trees, as "key: old → new"."""
    before, after = _flat(old), _flat(json.loads(_json(new)))
    return [
        f"{key}: {_show(before, key)} → {_show(after, key)}"
        for key in sorted(before.keys() | after.keys())
        if _show(before, key) != _show(after, key)
    ]


def mark_finished(folder: Path, summary: dict[str, Any]) -> None:
    """Writes finished.json: the very last act of a run."""
    durable.replace_file(folder / FINISHED_FILE, _json(summary | {"finished": now()}))


def read_finished(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run, or None while it is not."""
    path = folder / FINISHED_FILE
    return json.loads(path.read_bytes()) if path.exists() else None


def holder_of(folder: Path) -> str | None:
    """Who took the run's lock and has not released it, as the lock file says; None where nobody is written there."""
    path = folder / LOCK_FILE
    if not path.exists():
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _holder(descriptor)
    finally:
        os.close(descriptor)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _holder(descriptor: int) -> str | None:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} (since {holder['started']})"
    except (ValueError, KeyError, TypeError):
        return None


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _show(leaves: dict[str, Any], key: str) -> str:
    return json.dumps(leaves[key]) if key in leaves else "(absent)"
