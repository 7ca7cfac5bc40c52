"""`-m` on two ranks, with jobs that take no torch: in step, one after the other, whatever one of them does."""

from __future__ import annotations

import glob
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cut_dist.process import free_port

SCRIPT = str(Path(__file__).with_name("rank_sweep.py"))
ROOT = Path(__file__).resolve().parent.parent


class Ranks:
    """The supervisors of a sweep, as a launcher would start them, in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder, self.port, self.processes, self.sessions = folder, free_port(), [], set()

    def start(self, *arguments: str, ranks: int = 2, port: int | None = None) -> None:
        self.port = port or free_port()
        env = {**os.environ, "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port),
               "WORLD_SIZE": str(ranks), "LOCAL_SIZE": str(ranks)}  # fmt: skip
        command = [sys.executable, SCRIPT, "+experiment=smoke", "-m", *arguments]
        self.processes = [
            subprocess.Popen(
                [*command, f"--local_rank={rank}"], env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for rank in range(ranks)
        ]  # fmt: skip

    def wait(self, timeout: float = 60) -> tuple[list[int], str]:
        """Exit statuses, and what rank 0 printed."""
        outputs = [process.communicate(timeout=timeout)[0] for process in self.processes]
        return [process.returncode for process in self.processes], outputs[0]

    def run(self, *arguments: str, **options) -> tuple[list[int], str]:
        self.start(*arguments, **options)
        return self.wait()

    def wait_for_job(self, name: str, ranks: int = 2, timeout: float = 60) -> None:
        """Until all ranks of a job are there."""
        deadline = time.monotonic() + timeout
        while len([job for job, *_ in self.started() if job == name]) < ranks:
            assert time.monotonic() < deadline, f"not all ranks of {name} have begun"
            time.sleep(0.05)

    def job(self, name: str) -> dict:
        return json.loads((self.folder / "sweeps/smoke" / name / "job.json").read_text())

    def status(self, name: str) -> tuple:
        record = self.job(name)
        return record["status"], record["exit_code"], record["reason"]

    def started(self) -> list[list[str]]:
        """(job, rank, port, pid) of every rank of every job, in the order in which they began."""
        path = self.folder / "ranks.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def sweep(tmp_path):
    """Two supervisors; afterwards nothing of theirs is left: no process, no shared-memory file, no listener."""
    ranks = Ranks(tmp_path)
    yield ranks
    for process in ranks.processes:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    children = ranks.started()
    while any(alive(pid) for *_, pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [pid for *_, pid in children if alive(pid)]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    files = [path for *_, port, _ in children for path in glob.glob(f"/dev/shm/deepspeed_*{port}_*")]
    for path in set(files):
        os.unlink(path)
    assert not left and not files
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", ranks.port))


def test_every_combination_runs_on_all_ranks_one_after_the_other(sweep):
    codes, output = sweep.run("objective.lam=1.1,1.2", "objective.alpha=0.5,1")
    assert codes == [0, 0]
    assert "sweeps/smoke: 4 jobs: 4 finished" in output
    started = sweep.started()
    names = ["alpha-0.5_lam-1.1", "alpha-1_lam-1.1", "alpha-0.5_lam-1.2", "alpha-1_lam-1.2"]
    assert [name for name, *_ in started] == [name for name in names for _ in range(2)]
    for one, other in zip(started[::2], started[1::2]):
        assert {one[1], other[1]} == {"0", "1"} and one[2] == other[2]
    assert len({port for *_, port, _ in started}) == 4 and str(sweep.port) not in {port for *_, port, _ in started}
    plan = json.loads((sweep.folder / "sweeps/smoke/sweep.json").read_text())
    assert plan["swept"] == {"objective.lam": ["1.1", "1.2"], "objective.alpha": ["0.5", "1"]}
    assert [job["name"] for job in plan["jobs"]] == names
    assert plan["jobs"][1] == {
        "index": 1, "name": names[1], "overrides": {"objective.lam": "1.1", "objective.alpha": "1"},
    }  # fmt: skip
    record = sweep.job(names[3])
    assert (record["index"], record["status"], record["exit_code"], record["ranks"]) == (3, "finished", 0, 2)
    folder = sweep.folder / "sweeps/smoke" / names[0]
    assert "rank 0 of alpha-0.5_lam-1.1 is here" in (folder / "console.log").read_text()
    assert not (folder / "console.rank1.log").exists(), "a rank that ended well has nothing to say"


FAILURES = {  # what a job does → its exit code, and the reason told
    "fail-0": (1, "rank 0: ZeroDivisionError: made to fail"),
    "fail-1": (1, "rank 1: ZeroDivisionError: made to fail"),
    "told-1": (2, "rank 1: train.lr=1.0: made to be refused."),
    "exit-1": (3, "rank 1: rank 1 of fake-judgment-exit-1 is here"),
}


def test_a_job_that_fails_on_one_rank_is_failed_on_all_and_the_sweep_goes_on(sweep):
    codes, output = sweep.run(f"objective.fake_judgment=ok,{','.join(FAILURES)},fine")
    assert codes == [1, 0]
    assert [name for name, rank, *_ in sweep.started() if rank == "0"] == [
        f"fake-judgment-{kind}" for kind in ("ok", *FAILURES, "fine")
    ]
    assert "6 jobs: 2 finished, 4 failed" in output
    for kind, (code, reason) in FAILURES.items():
        name = f"fake-judgment-{kind}"
        assert sweep.status(name) == ("failed", code, reason)
        assert f"  {name}: failed, {reason}" in output
    assert "Traceback" in (sweep.folder / "sweeps/smoke/fake-judgment-fail-1/console.rank1.log").read_text()


def test_started_again_only_what_is_not_finished_runs(sweep):
    sweep.run("objective.fake_judgment=ok,exit-0,fine")
    before = sweep.job("fake-judgment-ok")
    (sweep.folder / "ranks.txt").unlink()
    codes, output = sweep.run("objective.fake_judgment=ok,exit-0,fine,more")
    assert codes == [1, 0]
    assert {name for name, *_ in sweep.started()} == {"fake-judgment-exit-0", "fake-judgment-more"}
    assert "4 jobs in sweeps/smoke, 2 finished earlier and kept" in output and "3 finished, 1 failed" in output
    assert sweep.job("fake-judgment-ok") == before and sweep.job("fake-judgment-more")["index"] == 3


def test_a_job_that_finished_when_its_sweep_was_killed_is_marked_so(sweep):
    sweep.run("objective.fake_judgment=ok,fine")
    path = sweep.folder / "sweeps/smoke/fake-judgment-ok/job.json"
    path.write_text(json.dumps({**sweep.job("fake-judgment-ok"), "status": "running", "exit_code": None}))
    assert sweep.run("objective.fake_judgment=ok,fine")[0] == [0, 0]
    assert sweep.status("fake-judgment-ok") == ("finished", 0, None)


def test_on_failure_stop_leaves_the_rest_waiting(sweep):
    codes, output = sweep.run("objective.fake_judgment=exit-0,ok", "sweep.on_failure=stop")
    assert codes == [1, 0] and "2 jobs: 1 failed, 1 waiting" in output
    assert not (sweep.folder / "sweeps/smoke/fake-judgment-ok/job.json").exists()


def ask_all(sweep, number):
    for process in sweep.processes:
        process.send_signal(number)


STOPS = {
    "Ctrl-C": lambda sweep: ask_all(sweep, signal.SIGINT),
    "SIGTERM of rank 1": lambda sweep: sweep.processes[1].terminate(),
    "STOP file": lambda sweep: (sweep.folder / "sweeps/smoke/STOP").touch(),
}


@pytest.mark.parametrize("how", STOPS)
def test_a_sweep_that_is_stopped_lets_the_job_save_and_goes_on_when_started_again(sweep, how):
    sweep.start("objective.fake_judgment=slow,ok")
    sweep.wait_for_job("fake-judgment-slow")
    for process in sweep.processes:
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text(), "a supervisor stays light"
    STOPS[how](sweep)
    codes, output = sweep.wait()
    assert codes == [75, 0], output
    assert sweep.status("fake-judgment-slow") == ("stopped", 0, "saved and stopped as asked")
    assert len(list(sweep.folder.glob("sweeps/smoke/fake-judgment-slow/saved.*"))) == 2
    assert "Stopped; the same command goes on." in output
    assert not list(sweep.folder.glob("**/fake-judgment-ok/job.json"))


def test_a_supervisor_that_dies_ends_the_sweep_and_its_job_on_every_rank(sweep):
    codes, output = sweep.run("objective.fake_judgment=kill-1,ok")
    assert codes == [1, -signal.SIGKILL]
    status, _, reason = sweep.status("fake-judgment-kill-1")
    assert status == "failed" and "rank 1's supervisor" in reason
    assert "1 failed, 1 waiting" in output


def test_when_rank_0s_supervisor_dies_the_others_end_their_job(sweep):
    codes, _ = sweep.run("objective.fake_judgment=kill-0,ok")
    assert codes == [-signal.SIGKILL, 1]
    for *_, port, _ in sweep.started():
        for path in glob.glob(f"/dev/shm/deepspeed_*{port}_*"):  # rank 0's, which training itself removes
            os.unlink(path)


def test_another_listener_on_the_port_is_said_by_rank_0(sweep):
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        sweep.start("objective.lam=1,2", port=port)
        output = sweep.processes[0].communicate(timeout=30)[0]
        assert sweep.processes[0].returncode == 2 and f"Port {port} of this machine is taken" in output
        sweep.processes[1].terminate()  # as the launcher does
        assert sweep.processes[1].wait(timeout=30) == 1


def test_a_mistake_in_the_last_job_shows_before_the_first_one_starts(sweep):
    sweep.start("objective.lam=1.1,1.2,-1", ranks=1)
    codes, output = sweep.wait()
    assert codes == [2] and "Job lam-1_" in output and "must be more than 0" in output
    assert list(sweep.folder.iterdir()) == []


def test_what_only_the_other_route_does_is_refused(sweep):
    codes, output = sweep.run("objective.lam=1,2", "sweep.jobs_at_a_time=2", ranks=1)
    assert codes == [2] and "sweep.jobs_at_a_time=2: is for python launch/sweep.py" in output


def test_torchrun_is_refused(sweep, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    codes, output = sweep.run("objective.lam=1,2", ranks=1)
    assert codes == [2] and "-m does not work under torchrun" in output


def test_a_second_sweep_in_the_same_folder_is_refused_while_the_first_one_runs(sweep):
    sweep.start("objective.fake_judgment=slow,ok", ranks=1)
    sweep.wait_for_job("fake-judgment-slow", ranks=1)
    other = Ranks(sweep.folder)
    codes, output = other.run("objective.fake_judgment=slow,ok", ranks=1)
    assert codes == [1] and "is in use by process" in output
    STOPS["STOP file"](sweep)
    assert sweep.wait()[0] == [75]


def test_without_a_launcher_there_is_one_rank(sweep):
    env = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "MASTER_PORT")}
    command = [sys.executable, SCRIPT, "+experiment=smoke", "-m", "objective.lam=1,2"]
    env["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, cwd=sweep.folder, env=env, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [(name, rank) for name, rank, *_ in sweep.started()] == [("lam-1", "0"), ("lam-2", "0")]


@pytest.mark.distributed
@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9 of the deepspeed command"])
def test_under_the_real_launcher_a_sweep_stops_cleanly_too(sweep, how):
    """Ctrl-C reaches the launcher and all supervisors at once; a killed command reaches nobody."""
    bin_folder = Path(sys.executable).parent
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{bin_folder}:{os.environ['PATH']}", "DS_ACCELERATOR": "cpu"}
    command = [str(bin_folder / "deepspeed"), "--num_gpus", "2", "--master_port", str(sweep.port), SCRIPT,
               "+experiment=smoke", "-m", "objective.fake_judgment=slow,ok"]  # fmt: skip
    with (sweep.folder / "output").open("w") as output:
        sweep.processes = [
            subprocess.Popen(
                command, cwd=sweep.folder, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        ]
    sweep.wait_for_job("fake-judgment-slow", timeout=90)
    if how == "Ctrl-C":
        os.killpg(sweep.processes[0].pid, signal.SIGINT)
    else:
        sweep.processes[0].kill()
    sweep.processes[0].wait(timeout=60)
    deadline = time.monotonic() + 60
    while "Stopped; the same command goes on." not in (sweep.folder / "output").read_text():
        assert time.monotonic() < deadline, (sweep.folder / "output").read_text()
        time.sleep(0.1)
    assert sweep.status("fake-judgment-slow") == ("stopped", 0, "saved and stopped as asked")
    assert len(list(sweep.folder.glob("sweeps/smoke/fake-judgment-slow/saved.*"))) == 2
