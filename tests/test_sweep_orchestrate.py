"""launch/sweep.py with jobs that take no torch: several at a time, its signals, other sweepers, submitit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cut_dist.config import ConfigError, SweepConfig
from cut_dist.sweep.local_jobs import Machine, visible_gpus

ROOT = Path(__file__).resolve().parent.parent


class Command:
    """launch/sweep.py beside a launch/train.py whose jobs are those of rank_sweep.py."""

    def __init__(self, folder: Path):
        self.folder, self.process = folder, None
        (folder / "launch").mkdir()
        shutil.copy(ROOT / "launch/sweep.py", folder / "launch/sweep.py")
        shutil.copy(ROOT / "tests/rank_sweep.py", folder / "launch/train.py")

    def start(self, *arguments: str, **env: str) -> None:
        variables = {key: value for key, value in os.environ.items() if key not in ("RANK", "CUDA_VISIBLE_DEVICES")}
        self.process = subprocess.Popen(
            [sys.executable, "launch/sweep.py", "+experiment=smoke", *arguments], cwd=self.folder, text=True,
            env={**variables, "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", **env},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        self.start(*arguments, **env)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        output = self.process.communicate(timeout=90)[0]
        return self.process.returncode, output

    def started(self) -> list[list[str]]:
        path = self.folder / "ranks.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for_ranks(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.started()) < number:
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.05)

    def statuses(self) -> dict[str, str]:
        return {
            path.parent.name: json.loads(path.read_text())["status"] for path in self.folder.glob("sweeps/*/*/job.json")
        }


@pytest.fixture
def sweep(tmp_path):
    command = Command(tmp_path)
    yield command
    if command.process and command.process.poll() is None:
        command.process.kill()
        command.process.wait()
    left = [pid for *_, pid in command.started() if Path(f"/proc/{pid}").exists()]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    files = [path for *_, port, _ in command.started() for path in Path("/dev/shm").glob(f"deepspeed_*{port}_*")]
    for path in set(files):
        path.unlink()
    assert not left and not files


def test_the_same_combinations_as_with_m_several_at_a_time_each_with_its_ranks(sweep):
    code, output = sweep.run("objective.fake_judgment=ok,fail-1,fine", "objective.lam=1,2", "sweep.ranks_per_job=2",
                             "sweep.jobs_at_a_time=2")  # fmt: skip
    assert code == 1 and "6 jobs: 4 finished, 2 failed" in output
    assert len(sweep.started()) == 12 and len({port for *_, port, _ in sweep.started()}) == 6
    names = {name for name, *_ in sweep.started()}
    assert len(names) == 6 and "fake-judgment-fail-1_lam-2" in names
    reason = "rank 1: ZeroDivisionError: made to fail"
    assert f"  fake-judgment-fail-1_lam-2: failed, {reason}" in output
    started = [line for line in output.splitlines() if ": started" in line or " after " in line]
    assert ["started" in line for line in started[:2]] == [True, True], "two at a time"

    (sweep.folder / "ranks.txt").unlink()
    code, output = sweep.run("objective.fake_judgment=ok,fine", "objective.lam=1,2")
    assert code == 0 and "4 finished earlier and kept" in output and not sweep.started()


def test_a_signal_lets_jobs_save_a_second_one_kills_and_a_new_start_goes_on(sweep):
    arguments = ("objective.fake_judgment=slow,ok", "objective.lam=1,2", "sweep.jobs_at_a_time=2")
    sweep.start(*arguments)
    sweep.wait_for_ranks(2)
    sweep.process.send_signal(signal.SIGINT)
    code, output = sweep.wait()
    assert code == 75 and "Stopped; the same command goes on." in output
    assert sweep.statuses() == {f"fake-judgment-slow_lam-{lam}": "stopped" for lam in (1, 2)}
    assert len(list(sweep.folder.glob("sweeps/smoke/*/saved.0"))) == 2

    (sweep.folder / "ranks.txt").unlink()
    sweep.start("objective.fake_judgment=deaf,ok", "objective.lam=1,2")
    sweep.wait_for_ranks(1)
    for _ in range(2):
        sweep.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    assert sweep.wait()[0] == 75
    record = json.loads((sweep.folder / "sweeps/smoke/fake-judgment-deaf_lam-1/job.json").read_text())
    assert (record["status"], record["exit_code"]) == ("stopped", -signal.SIGKILL)


def test_a_sweep_that_is_killed_leaves_no_job_behind(sweep):
    sweep.start("objective.fake_judgment=slow,ok", "sweep.ranks_per_job=2")
    sweep.wait_for_ranks(2)
    sweep.process.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for *_, pid in sweep.started()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(list(sweep.folder.glob("sweeps/smoke/*/saved.*"))) == 2, "they have saved"
    for *_, port, _ in sweep.started():
        for path in Path("/dev/shm").glob(f"deepspeed_*{port}_*"):  # which training itself removes
            path.unlink()


def test_optuna_searches_an_interval_and_finds_its_jobs_finished_when_started_again(sweep):
    arguments = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "objective.lam=interval(1.0,2.0)",
                 "objective.alpha=0.5,1", "sweep.jobs_at_a_time=2")  # fmt: skip
    code, output = sweep.run(*arguments)
    assert code == 0 and "4 jobs: 4 finished" in output
    first = json.loads((sweep.folder / "sweeps/smoke/sweep.json").read_text())
    found = (sweep.folder / "sweeps/smoke/optimization_results.yaml").read_text()
    best = min(float(j["overrides"]["objective.lam"]) * float(j["overrides"]["objective.alpha"]) for j in first["jobs"])
    assert f"best_value: {best}" in found
    (sweep.folder / "ranks.txt").unlink()
    code, output = sweep.run(*arguments)
    assert code == 0 and not sweep.started()
    assert json.loads((sweep.folder / "sweeps/smoke/sweep.json").read_text())["jobs"] == first["jobs"]


def test_an_unknown_sweeper_is_one_sentence(sweep):
    code, output = sweep.run("hydra/sweeper=optunna", "objective.lam=1,2")
    assert code == 2 and "hydra/sweeper=optunna" in output and "Traceback" not in output


@pytest.mark.parametrize("setting", ["sweep.cluster=local", "sweep.metric=verifiable_strict"])
def test_what_a_search_cant_do_is_refused_before_its_first_job(sweep, setting):
    code, output = sweep.run("hydra/sweeper=optuna", "objective.lam=interval(1.0,2.0)", setting)
    assert code == 2 and f"error: {setting}: " in output.replace("'", "") and not sweep.started()


def test_a_search_goes_by_any_number_that_jobs_report(sweep):
    code, output = sweep.run("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "objective.lam=interval(1.0,2.0)",
                             "sweep.metric=seconds")  # fmt: skip
    assert code == 0 and "2 jobs: 2 finished" in output
    assert "best_value: " in (sweep.folder / "sweeps/smoke/optimization_results.yaml").read_text()


def test_a_job_array_of_submitit_runs_the_same_jobs(sweep):
    code, output = sweep.run("objective.fake_judgment=ok,fail-1,fine", "sweep.cluster=local", "sweep.ranks_per_job=2",
                             "sweep.submitit={timeout_min: 2}", "sweep.jobs_at_a_time=2")  # fmt: skip
    assert code == 1 and "3 jobs: 2 finished, 1 failed" in output, output
    assert len(sweep.started()) == 6
    record = json.loads((sweep.folder / "sweeps/smoke/fake-judgment-fail-1/job.json").read_text())
    assert (record["ranks"], record["reason"]) == (2, "rank 1: ZeroDivisionError: made to fail")


def test_a_job_array_is_stopped_cleanly(sweep):
    sweep.start("objective.fake_judgment=slow", "objective.lam=1,2", "sweep.cluster=local")
    sweep.wait_for_ranks(2)
    sweep.process.send_signal(signal.SIGINT)
    code, output = sweep.wait()
    assert code == 75, output
    assert sweep.statuses() == {"lam-1": "stopped", "lam-2": "stopped"}


@pytest.mark.parametrize(
    ("settings", "gpus", "ranks"),
    [
        (SweepConfig(), "0,1,2,3", 4),
        (SweepConfig(jobs_at_a_time=2), "4,5,6,7", 2),
        (SweepConfig(ranks_per_job=1, jobs_at_a_time=3), "GPU-a,GPU-b,GPU-c", 1),
        (SweepConfig(jobs_at_a_time=3), "", 1),
    ],
)
def test_gpus_are_shared_out_and_no_two_jobs_get_the_same(monkeypatch, settings, gpus, ranks):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    machine = Machine(settings)
    assert machine.ranks == ranks
    shares = [gpu for share in machine._free for gpu in share]
    assert shares == [gpu for gpu in gpus.split(",") if gpu][: ranks * settings.jobs_at_a_time]
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert visible_gpus() == []


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    with pytest.raises(ConfigError, match="2 ranks each need 4 GPUs, and this machine shows 2"):
        Machine(SweepConfig(ranks_per_job=2, jobs_at_a_time=2))
