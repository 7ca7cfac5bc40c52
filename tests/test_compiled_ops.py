"""`cut_dist.engine.compiled_ops`: a lock that a killed compilation left stops nobody; a living one is waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock, Timeout

from cut_dist.engine import compiled_ops

HOLDER = """
import sys, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


class Builder:
    """Stands for DeepSpeed's: notes whether PyTorch would have found a lock."""

    name = "op"

    def __init__(self, folder):
        self.folder, self.found_lock = folder, None

    def is_compatible(self):
        return True

    def load(self, verbose):
        self.found_lock = (self.folder / "op" / "lock").exists()


@pytest.fixture
def builder(monkeypatch, tmp_path):
    monkeypatch.setenv("CUT_DIST_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "")
    builder = Builder(compiled_ops._own_folder())
    (builder.folder / "op").mkdir(parents=True)
    accelerator = SimpleNamespace(create_op_builder=lambda name: builder)
    monkeypatch.setattr(compiled_ops, "get_accelerator", lambda: accelerator)
    return builder


@pytest.mark.parametrize("number", [1, 2])
def test_a_lock_left_by_a_killed_compilation_is_removed(builder, number):
    """Whichever operation of a run it is."""
    for _ in range(number):
        (builder.folder / "op" / "lock").touch()
        compiled_ops.load_op("OpBuilder")
        assert builder.found_lock is False


def test_a_killed_process_holds_nobody_up_and_a_living_one_does(builder):
    lock = builder.folder / "cut_dist.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdin=-1, stdout=-1, text=True)
    with holder:
        assert holder.stdout.readline() == "held\n"
        assert not _can_take(lock)
        holder.kill()
    compiled_ops.load_op("OpBuilder")
    assert builder.found_lock is False


def test_a_folder_that_the_user_names_is_left_as_it_is(builder, monkeypatch, tmp_path):
    builder.folder = tmp_path / "shared"
    (builder.folder / "op").mkdir(parents=True)
    (builder.folder / "op" / "lock").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(builder.folder))
    compiled_ops.load_op("OpBuilder")
    assert builder.found_lock is True


def _can_take(lock) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def test_the_environments_ninja_comes_first(builder, monkeypatch):
    """A command that came by ssh finds the system's otherwise, whose other version compiles everything anew."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    compiled_ops.load_op("OpBuilder")
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}:/usr/bin:/bin"
    assert Path(shutil.which("ninja")).parent == Path(sys.executable).parent
    compiled_ops.load_op("OpBuilder")
    assert os.environ["PATH"].count(str(Path(sys.executable).parent)) == 1
