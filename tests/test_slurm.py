"""launch/slurm/*.sbatch with stand-ins for srun and scontrol: what the ranks are told, and when a job is put back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cut_dist.metrics import read_metrics

# One process a task, as srun starts them; ends with the worst status. SIGTERM goes on to the tasks.
SRUN = """#!{python}
import os, signal, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("-"):
    command = command[1:]
number, here = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
tasks = [
    subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i % here)}})
    for i in range(number)
]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """#!/bin/sh
case "$1" in
  show) echo "$3" | tr , '\\n' ;;
  requeue) echo "$2" >> "$LOG/requeued" ;;
esac
"""
# Stands for Python in the cheap cases: tells the configuration, notes its rank, and behaves as $AS says.
PYTHON = """#!/bin/bash
[ "$1" = -c ] && exec {python} "$@"
RUN=runs/smoke/x
case "$*" in
  *" -m "*"--cfg job") printf '   1  my sweeps/s/lam-1  seed=1\n   2  my sweeps/s/lam-2  seed=2\n'; exit ;;
  *"--cfg job"*) echo "run: {{root: runs, experiment: smoke, name: x}}"; exit ;;
  *" -m "*) RUN="my sweeps/s" ;;
esac
echo "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_SIZE $MASTER_ADDR $MASTER_PORT $*" >> "$LOG/ranks"
trap 'touch "$LOG/terminated"; exit ${{ON_TERM:-143}}' TERM
mkdir -p "$RUN"
touch "$LOG/started$RANK"
case "$AS" in
  finishes) touch "$RUN/finished.json" ;;
  fails) exit 3 ;;
  stops) while [ ! -e "$RUN/STOP" ]; do sleep 0.1; done; exit "${{STATUS:-0}}" ;;
  finishes-late) while [ ! -e "$RUN/STOP" ]; do sleep 0.1; done; touch "$RUN/finished.json" ;;
  saves-for-long) while [ ! -e "$LOG/requeued" ]; do sleep 0.1; done; exit 1 ;;
  waits) while :; do sleep 0.1; done ;;
esac
"""


@pytest.fixture
def cluster(root, tmp_path):
    """A function that starts a script of launch/slurm/ as job 4711, 4 tasks on 2 nodes, in a folder like a checkout."""
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    commands = {"srun": SRUN, "scontrol": SCONTROL, "python": PYTHON}
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        path = tmp_path / "bin" / name
        path.write_text(text.format(python=sys.executable) if "{python}" in text else text)
        path.chmod(0o755)
    started = []

    def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        env = {
            **os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(tmp_path),
            "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "gpu1,gpu2", "SLURM_NTASKS": "4",
            "SLURM_NTASKS_PER_NODE": "2", "SLURM_SUBMIT_DIR": str(tmp_path), "PYTHON": str(tmp_path / "bin/python"),
            **environment,
        }  # fmt: skip
        process = subprocess.Popen(
            ["bash", str(root / "launch/slurm" / script), *arguments], env=env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(process: subprocess.Popen, *paths: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"{paths} missing:\n{process.communicate()[0][-3000:]}")
        time.sleep(0.05)


def requeued(folder: Path) -> list[str]:
    path = folder / "requeued"
    return path.read_text().split() if path.exists() else []


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("script", ["train.sbatch", "online.sbatch"])
def test_bash_takes_the_script(root, script):
    subprocess.run(["bash", "-n", str(root / "launch/slurm" / script)], check=True)


def test_every_task_is_a_rank_and_a_finished_run_is_not_put_back(cluster, tmp_path):
    process = cluster("train.sbatch", "+experiment=smoke", "run.name=a b", AS="finishes")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    lines = sorted((tmp_path / "ranks").read_text().splitlines())
    said = "gpu1 24711 -u launch/train.py +experiment=smoke run.name=a b"
    assert lines == [f"{rank} {rank % 2} 4 2 {said}" for rank in range(4)]
    assert "the run is runs/smoke/x" in output and requeued(tmp_path) == []


@pytest.mark.parametrize(
    ("behaviour", "status", "put_back"),
    [("stops", 0, ["4711"]), ("finishes-late", 0, []), ("saves-for-long", 1, ["4711"])],
)
def test_at_the_time_limit_what_is_not_finished_is_put_back_once(cluster, tmp_path, behaviour, status, put_back):
    seconds = "1" if behaviour == "saves-for-long" else "60"
    process = cluster("train.sbatch", "+experiment=smoke", AS=behaviour, SAVE_S=seconds)
    wait_for(process, *(tmp_path / f"started{rank}" for rank in range(4)))
    process.send_signal(signal.SIGUSR1)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == status, output
    assert requeued(tmp_path) == put_back


@pytest.mark.parametrize(("status", "put_back"), [("75", ["4711"]), ("1", [])])
def test_a_sweep_is_stopped_in_its_own_folder_and_put_back_by_its_status(cluster, tmp_path, status, put_back):
    process = cluster("train.sbatch", "+experiment=smoke", "-m", "objective.lam=1,2", AS="stops", STATUS=status)
    wait_for(process, *(tmp_path / f"started{rank}" for rank in range(4)))
    process.send_signal(signal.SIGUSR1)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == int(status), output
    assert "the run is my sweeps/s\n" in output and requeued(tmp_path) == put_back


def test_a_run_that_fails_is_not_put_back(cluster, tmp_path):
    process = cluster("train.sbatch", "+experiment=smoke", AS="fails")
    process.communicate(timeout=60)
    assert process.returncode == 3 and requeued(tmp_path) == []


def test_a_mistake_ends_the_job_before_any_task_starts(cluster, root, tmp_path):
    (tmp_path / "bin/srun").write_text('#!/bin/sh\ntouch "$LOG/ranks"\n')
    process = cluster("train.sbatch", "+experiment=smok", PYTHON=sys.executable, SLURM_SUBMIT_DIR=str(root))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 2 and "did you mean" in output and "Traceback" not in output
    assert not (tmp_path / "ranks").exists() and requeued(tmp_path) == []


@pytest.mark.parametrize(("on_term", "put_back"), [("75", ["4711"]), ("0", []), ("1", [])])
def test_online_rounds_are_put_back_by_their_status(cluster, tmp_path, on_term, put_back):
    process = cluster("online.sbatch", "+experiment=smoke", AS="waits", ON_TERM=on_term, SAVE_S="60")
    wait_for(process, tmp_path / "started")
    process.send_signal(signal.SIGUSR1)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == int(on_term), output
    assert (tmp_path / "terminated").exists() and requeued(tmp_path) == put_back


@pytest.mark.distributed
def test_a_real_run_saves_at_the_time_limit(cluster, root, tmp_path):
    """Two CPU ranks of the smoke experiment."""
    job = next(job for job in range(os.getpid() % 5000, 9999) if not listening(20000 + job))  # the script's port
    folder = tmp_path / "runs/smoke/long"
    process = cluster(
        "train.sbatch", "+experiment=smoke", f"run.root={tmp_path / 'runs'}", "run.name=long", "train.max_steps=100000",
        "eval.at_start=false", "checkpoint.every=0", PYTHON=sys.executable, SLURM_SUBMIT_DIR=str(root),
        SLURM_NTASKS="2", SLURM_JOB_ID=str(job), SLURM_JOB_NODELIST="127.0.0.1", OMP_NUM_THREADS="1",
        DS_ACCELERATOR="cpu",
    )  # fmt: skip
    wait_for(process, folder / "metrics.jsonl", seconds=150)
    process.send_signal(signal.SIGUSR1)
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 0, output[-3000:]
    done = len(read_metrics(folder / "metrics.jsonl"))
    assert f"stopped as asked after step {done}" in output
    assert (folder / "checkpoints" / f"step_{done:08d}" / "MANIFEST.json").exists()
    assert requeued(tmp_path) == [str(job)]
    assert not list(Path("/dev/shm").glob(f"deepspeed_*{20000 + job}_*"))
