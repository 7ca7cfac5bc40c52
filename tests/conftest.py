"""Fixtures for all tests: the repository's root, and a launcher of ranks that cleans up after itself."""

from __future__ import annotations

import glob
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared"

# What a shell without job control starts in the background ignores Ctrl-C, and all that it starts does too.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("WANDB_MODE", "offline")  # no test may reach for the network
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, so before any test file is


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` skip, with the reason, where torch sees no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch sees none"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real triplets beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the shared data beside the checkout, and {SHARED_DATA.name}/ is not there")
    return SHARED_DATA


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _run_ranks(command: list[str], world_size: int, timeout: float, env: dict[str, str], status: int) -> list[str]:
    port = free_port()
    common = {
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size),
        "LOCAL_SIZE": str(world_size), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT), **env,
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, *command], env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        for rank in range(world_size)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in ranks]
    except subprocess.TimeoutExpired:
        _kill(ranks)
        tails = "\n".join(f"--- rank {r}\n{p.communicate()[0][-3000:]}" for r, p in enumerate(ranks))
        raise AssertionError(f"{command} on {world_size} ranks did not end in {timeout} s\n{tails}") from None
    finally:
        _kill(ranks)
        for path in glob.glob(f"/dev/shm/deepspeed_*{port}_*"):
            os.unlink(path)
    for rank, (process, output) in enumerate(zip(ranks, outputs)):
        assert process.returncode == status, f"rank {rank} of {command}: {process.returncode}\n{output[-5000:]}"
    return outputs


def _kill(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def run_ranks() -> Callable[..., list[str]]:
    """Run a Python command as `world_size` gloo ranks on this machine and return what each printed.

    Every rank must end with `status`. Processes and shared-memory files are gone afterwards, however it ends.
    """

    def run(command: list[str], world_size: int, *, timeout: float = 300, env: dict | None = None, status: int = 0):
        return _run_ranks(command, world_size, timeout, env or {}, status)

    return run
