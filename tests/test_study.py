"""A whole study of the laboratory, made very small, by its command: killed once, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cut_dist.process import free_port, remove_shared_buffers

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "study.seeds=2", "study.pretrain_steps=3", "study.pretrain_batch=8", "study.samples=16", "study.round_samples=10",
    "study.rounds=2", "study.heldout=6", "study.lrs=[3e-4]", "study.epochs=[1.0]", "study.workers=1",
    "study.parts=[rounds,detection]", "train.global_batch_size=8", "run.timeout_minutes=2",
]  # fmt: skip


def wait_for_its_group(group: int) -> None:
    """Its workers die with it, and the one that tracks semaphores removes them then."""
    deadline = time.monotonic() + 60
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.2)
        os.killpg(group, signal.SIGKILL)
        raise AssertionError("the workers of a study that was killed go on")


@pytest.mark.timeout(900)
def test_a_study_is_killed_and_goes_on_to_its_report(tmp_path):
    keys = [f"study.root={tmp_path}", f"study.results={tmp_path / 'results'}", *SMALL]
    command = [sys.executable, "launch/study.py", *keys]
    port = free_port()  # which names the shared memory of the worker that is killed
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "MASTER_PORT": str(port)}
    cells = tmp_path / "cells"

    first = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while len(list(cells.rglob("*.json"))) < 5:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        first.kill()
        first.wait()
        wait_for_its_group(first.pid)
        remove_shared_buffers(port)
    done = {path: path.stat().st_mtime_ns for path in cells.rglob("*.json")}

    second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert second.returncode == 0, second.stderr[-2000:]
    assert {path: path.stat().st_mtime_ns for path in done} == done  # not made again
    numbers = json.loads((tmp_path / "results" / "numbers.json").read_text())
    assert set(numbers["parts"]) >= {"base", "rounds", "detection"} and not numbers["failed"]
    assert len(numbers["parts"]["rounds"]["online"]["accuracy"]["values"]) == 2
    assert {"fake.1.1.precision", "instruction.5.recall"} <= set(numbers["parts"]["detection"]["detection"])
    assert (tmp_path / "results" / "report.html").exists()
