"""A save and prune is killed at every system call that changes a disk; nothing committed may be lost, ever.

Each kill is a forked child that leaves by `os._exit` just before its k-th call, or in the middle of its k-th write. The
power-cut variant also spoils, at that moment, every file that was not fsynced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

import pytest

from cut_dist import checkpoint, durable
from cut_dist.checkpoint import newest_valid, prune, verify

CALLS = ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "ftruncate")
KILLED = 9


def save(root: Path, step: int) -> None:
    stage = checkpoint.begin_stage(root)
    (stage / "engine").mkdir()
    for name in ("engine/rank0.pt", "engine/rank1.pt", "rng.json"):
        # As an engine does: plain writes, nothing synced.
        descriptor = os.open(stage / name, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, f"{name} {step} ".encode() * 200)
        os.close(descriptor)
    files = {**checkpoint.seal_share(stage, 0, 2), **checkpoint.seal_share(stage, 1, 2)}
    checkpoint.commit_stage(root, step, files=files, world_size=2)


class Killer:
    """Counts the calls of `os` that change a disk, and ends the process at one of them."""

    def __init__(self, root: Path, at: int, *, half_write: bool, power_cut: bool) -> None:
        self.root, self.at, self.half_write, self.power_cut = root, at, half_write, power_cut
        self.count = 0
        self.safe = {path.stat().st_ino for path in root.rglob("*")}
        self.real = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            setattr(os, name, self.wrap(name))

    def wrap(self, name: str):
        real = self.real[name]

        def call(*args, **kwargs):
            if name == "open" and not (args[1] & os.O_CREAT):
                return real(*args, **kwargs)
            self.count += 1
            if self.count == self.at:
                if name == "write" and self.half_write:
                    real(args[0], args[1][: len(args[1]) // 2])
                self.die()
            if name == "fsync":
                self.safe.add(os.fstat(args[0]).st_ino)
            return real(*args, **kwargs)

        return call

    def die(self) -> None:
        if self.power_cut:
            for path in list(self.root.rglob("*")):
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode) and status.st_ino not in self.safe:
                        os.truncate(path, status.st_size // 2)
        os._exit(KILLED)


def run_killed(root: Path, at: int, **how: bool) -> tuple[bool, list[int]]:
    """Runs save 30, prune, save 40, prune in a child. Returns (did it live to the end, steps it saw committed)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            killer = Killer(root, at, **how)
            for step in (30, 40):
                save(root, step)
                killer.real["write"](writing, bytes([step]))
                prune(root, 2)
            os._exit(0)
        finally:  # an exception must not run on into a second pytest
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        committed = list(pipe.read())
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"call {at}: the child failed by itself"
    return code == 0, committed


def prepare(root: Path) -> None:
    """Steps 10 and 20 valid, 30 broken, leftovers of an earlier kill."""
    for step in (10, 20, 30):
        save(root, step)
    (root / "step_00000030" / "rng.json").write_bytes(b"broken")
    (root / "rejected_step_00000030").mkdir()
    (root / ".trash_step_00000005").mkdir()
    (root / ".trash_step_00000005" / "rng.json").write_bytes(b"old")
    (root / ".stage").mkdir()
    (root / ".stage" / "half.pt").write_bytes(b"half")


def check(root: Path, committed: list[int]) -> None:
    """The newest committed step, or a later one, loads; two are good; and the run can save again."""
    path, _ = newest_valid(root)
    assert path is not None
    step = checkpoint.step_of(path.name)
    assert step >= max([20, *committed]), f"step {max(committed)} was committed, {step} is the newest valid"
    content = (path / "engine" / "rank1.pt").read_text()
    assert content == f"engine/rank1.pt {step} " * 200
    valid = [entry for entry in root.iterdir() if checkpoint.step_of(entry.name) and not verify(entry)]
    assert len(valid) >= 2
    save(root, 50)
    prune(root, 2)
    assert newest_valid(root) == (root / "step_00000050", [])
    assert not [entry.name for entry in root.iterdir() if entry.name.startswith(".")]


def kill_everywhere(tmp_path: Path, **how: bool) -> int:
    template = tmp_path / "template"
    prepare(template)
    at, finished = 0, False
    while not finished:
        at += 1
        root = tmp_path / f"killed_{at}"
        shutil.copytree(template, root)
        finished, committed = run_killed(root, at, **how)
        check(root, committed)
        shutil.rmtree(root)
    return at - 1


@pytest.mark.parametrize("half_write", [False, True], ids=["before", "mid_write"])
@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power_cut"])
def test_no_kill_loses_a_committed_step(tmp_path, half_write, power_cut):
    assert kill_everywhere(tmp_path, half_write=half_write, power_cut=power_cut) >= 50


def test_the_power_cut_would_find_a_missing_fsync(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "sync_file", lambda path: None)
    with pytest.raises(AssertionError):
        kill_everywhere(tmp_path, half_write=False, power_cut=True)
