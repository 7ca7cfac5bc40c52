"""A sweep of the tiny model on 2 CPU ranks by both routes: the same results to the bit, and nothing left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cut_dist.metrics import read_metrics
from cut_dist.process import free_port

pytestmark = pytest.mark.distributed

CLOCK = ("seconds", "tokens_per_s", "tflops_per_rank", "mfu", "memory/rss_gib", "memory/peak_rss_gib")
GRID = ["+experiment=sweep_smoke", "objective.alpha=1", "objective.gamma=1"]


def results(folder: Path) -> list[dict]:
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def orphaned_buffers() -> set[str]:
    """DeepSpeed's shared-memory files that no living process has mapped."""
    mapped = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            mapped |= {line.split()[-1] for line in maps.read_text().splitlines() if "/dev/shm/deepspeed_" in line}
    return {str(path) for path in Path("/dev/shm").glob("deepspeed_*")} - mapped


@pytest.fixture(scope="module")
def routes(root, tmp_path_factory):
    """lam = 0.9 and 1 by both routes; by the first also 1.1, of which rank 1 raises."""
    folder, before = tmp_path_factory.mktemp("sweeps"), orphaned_buffers()
    bin_folder = Path(sys.executable).parent
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{bin_folder}:{os.environ['PATH']}", "FAILING_JOB": "lam-1.1",
           "PYTHONPATH": str(root), "DS_ACCELERATOR": "cpu"}  # fmt: skip
    common = {"cwd": folder, "env": env, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    port = free_port()
    launcher = [str(bin_folder / "deepspeed"), "--num_gpus", "2", "--master_port", str(port)]
    script = str(root / "tests/rank_sweep_train.py")
    supervised = [*launcher, script, "-m", *GRID, "objective.lam=0.9,1,1.1", "sweep.name=supervised"]
    one = subprocess.run(supervised, timeout=400, **common)
    separate = [sys.executable, str(root / "launch/sweep.py"), *GRID, "sweep.name=separate", "sweep.ranks_per_job=2"]
    other = subprocess.run(separate, timeout=400, **common)
    left = orphaned_buffers() - before
    return {"folder": folder / "sweeps", "supervised": one, "separate": other, "left": left, "port": port}


def test_both_routes_train_the_same_models_to_the_bit(routes):
    assert routes["separate"].returncode == 0, routes["separate"].stdout[-3000:]
    losses = set()
    for name in ("lam-0.9", "lam-1"):
        one, other = (results(routes["folder"] / route / name) for route in ("supervised", "separate"))
        assert [row["step"] for row in one if row["kind"] == "train"] == [1, 2]
        assert one == other
        losses |= {row["loss"] for row in one if row["kind"] == "train"}
    assert len(losses) == 4, "the jobs differ"


def test_a_rank_that_fails_in_training_fails_its_job_only_and_both_ranks_are_gone(routes):
    done = routes["supervised"]
    assert done.returncode == 1
    assert "3 jobs: 2 finished, 1 failed" in done.stdout
    assert "  lam-1.1: failed, rank 1: ZeroDivisionError: made to fail" in done.stdout
    record = json.loads((routes["folder"] / "supervised/lam-1.1/job.json").read_text())
    assert (record["status"], record["ranks"]) == ("failed", 2)


def test_nothing_is_left_behind(routes):
    assert not routes["left"]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", routes["port"]))
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if str(routes["folder"]).encode() in command]
    assert not [command for command in commands if b"rank_sweep_train" in command]
    consoles = [path.read_text() for path in routes["folder"].glob("*/*/console.log")]
    assert len(consoles) == 5 and all(consoles)
