"""Run by test_sweep_*.py: launch/train.py with a job that takes no torch and does what its fake judgment says.

    ok         finishes                             fail-R     rank R raises; the others wait for it for ever
    told-R     rank R tells its user what is wrong  hang       never ends
    slow       ends when it is asked to, and saves  deaf       never ends, whatever it is asked
    exit-R     rank R exits with 3                  kill-R     rank R's supervisor is killed

Each rank appends `<name> <rank> <port> <pid>` to `ranks.txt` where the sweep was started.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from cut_dist.cli import hydra_entry
from cut_dist.config import Config, ConfigError, run_dir
from cut_dist.process import StopSignal
from cut_dist.run_folder import STOP_FILE, mark_finished
from cut_dist.sweep import ends, supervise

ends.GRACE_S = supervise._STOP_S = 1.5


def job(cfg: Config) -> int:
    stop, rank = StopSignal(), int(os.environ["RANK"])
    with Path("ranks.txt").open("a") as file:
        file.write(f"{cfg.run.name} {rank} {os.environ['MASTER_PORT']} {os.getpid()}\n")
    print(f"rank {rank} of {cfg.run.name} is here", flush=True)
    kind, _, which = cfg.objective.fake_judgment.partition("-")
    Path(f"/dev/shm/deepspeed_test_buffer_{os.environ['MASTER_PORT']}_{rank}").touch()
    if which and int(which) == rank:
        act(kind)
    elif which:
        wait_for_ever()
    if kind in ("hang", "deaf"):
        wait_for_ever()
    folder = run_dir(cfg)
    while kind == "slow":
        time.sleep(0.05)
        if stop.asked or (folder / STOP_FILE).exists():
            (folder / f"saved.{rank}").touch()
            return 0
    if rank == 0:
        value = cfg.objective.lam * cfg.objective.alpha
        row = {"kind": "eval", "step": 1, "heldout/loss": value, "heldout/p_inappropriate": value}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        mark_finished(folder, {"steps": 1})
    return 0


def act(kind: str) -> None:
    """What the rank does that the fake judgment names."""
    if kind == "fail":
        raise ZeroDivisionError("made to fail")
    if kind == "told":
        raise ConfigError("train.lr=1.0: made to be refused.")
    if kind == "exit":
        sys.exit(3)
    if kind == "kill":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # where training would see its collective break
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    wait_for_ever()


def wait_for_ever() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a rank in a collective, whose handler never gets its turn
    time.sleep(600)


if __name__ == "__main__":
    hydra_entry("train", job, sweep=supervise.supervise)
