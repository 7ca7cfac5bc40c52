"""Runs the 2 x 2 x 2 sweep of the tiny model on 2 CPU ranks by both routes and writes what came out as JSON.

`python tests/measure_sweep.py docs/results/sweep_smoke.json`. In each route the checkpoint folder of one job can't be
written at first, so that job fails; the sweep is then started again without the fault.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from cut_dist.benchmark.machine import describe
from cut_dist.metrics import read_metrics
from cut_dist.process import free_port

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FAULTY = "alpha-0.5_gamma-0.5_lam-1"  # the fifth job
CLOCK = ("seconds", "tokens_per_s", "tflops_per_rank", "mfu", "memory/rss_gib", "memory/peak_rss_gib")


def main() -> None:
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        port = free_port()
        commands = {
            "supervised": [str(BIN / "deepspeed"), "--num_gpus", "2", "--master_port", str(port),
                          str(ROOT / "launch/train.py"), "+experiment=sweep_smoke", "-m", "sweep.name=supervised"],
            "separate": [sys.executable, str(ROOT / "launch/sweep.py"), "+experiment=sweep_smoke",
                         "sweep.ranks_per_job=2", "sweep.name=separate"],
        }  # fmt: skip
        report = {"machine": describe(torch.device("cpu"))}
        report["routes"] = {name: route(name, command) for name, command in commands.items()}
        one, other = (outcomes(Path("sweeps") / name) for name in commands)
        report["identical"] = {name: one[name]["rows"] == other[name]["rows"] for name in one}
        report["final_loss"] = {name: [one[name]["loss"].hex(), other[name]["loss"].hex()] for name in one}
    target.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def route(name: str, command: list[str]) -> dict:
    """Two starts of a sweep: with one faulty job, and without the fault."""
    fault = Path("sweeps") / name / FAULTY / "checkpoints"
    fault.parent.mkdir(parents=True)
    fault.touch()
    first = start(name, command)
    fault.unlink()
    shown = [Path(part).name if part.startswith("/") else part for part in command]
    again = start(name, command)
    del again["supervisors_mib_after_job"]  # of one job
    return {"command": shown, "first": first, "again": again}


def start(name: str, command: list[str]) -> dict:
    """Run a sweep to its end and look at what it holds between its jobs and leaves behind."""
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
    before, began = leftovers(), time.monotonic()
    with Path(f"{name}.log").open("w") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        memory: dict[int, float] = {}
        while process.poll() is None:
            ended = sum(status != "running" for status in statuses(name).values())
            if ended and ended not in memory:  # at once: after the last job they write the report, then go one by one
                memory[ended] = supervisors_mib(process.pid)
            time.sleep(0.01)
    counts: dict[str, int] = {}
    for status in statuses(name).values():
        counts[status] = counts.get(status, 0) + 1
    told = Path(f"{name}.log").read_text().replace(f"{os.getcwd()}/", "")
    lines = [line for line in told.splitlines() if "failed" in line or "jobs:" in line]
    return {
        "exit_code": process.returncode, "statuses": counts, "seconds": round(time.monotonic() - began, 1),
        "supervisors_mib_after_job": memory, "last_lines": lines, "left_behind": sorted(leftovers() - before),
    }  # fmt: skip


def statuses(name: str) -> dict[str, str]:
    records = (Path("sweeps") / name).glob("*/job.json")
    return {path.parent.name: json.loads(path.read_text())["status"] for path in records}


def supervisors_mib(pid: int) -> float:
    """Resident memory of the processes that stay between jobs, less the `deepspeed` command and its launcher."""
    total, found = 0, set()
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            # a rank that is being forked still has its supervisor's command, and a supervisor for its parent
            if "deepspeed" not in command and "--config-file" not in command and process.ppid() not in found:
                found.add(process.pid)
                total += process.memory_info().rss
    return round(total / 2**20, 1)


def leftovers() -> set[str]:
    """Shared-memory files that no process has mapped, processes of a sweep, and ports that they listen on."""
    here, mapped, found = os.getcwd(), set(), set()
    for process in psutil.process_iter():
        try:
            mapped |= {m.path for m in process.memory_maps() if "/dev/shm/deepspeed_" in m.path}
            if process.pid != os.getpid() and process.cwd() == here:
                found.add(f"process {process.pid} {process.cmdline()[:4]}")
                found |= {f"port {c.laddr.port}" for c in process.net_connections() if c.status == "LISTEN"}
        except psutil.Error:
            continue
    return found | ({str(path) for path in Path("/dev/shm").glob("deepspeed_*")} - mapped)


def outcomes(folder: Path) -> dict[str, dict]:
    """Job → its metrics without what the clock has part in, and its last training loss."""
    found = {}
    for path in sorted(folder.glob("*/metrics.jsonl")):
        rows = [{key: value for key, value in row.items() if key not in CLOCK} for row in read_metrics(path)]
        losses = [row["loss"] for row in rows if row["kind"] == "train"]
        found[path.parent.name] = {"rows": rows, "loss": losses[-1] if losses else math.nan}
    return found


if __name__ == "__main__":
    main()
