"""`cut_dist.engine.launch`: ranks that never meet end with a sentence, whatever PyTorch does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from cut_dist.engine import launch
from cut_dist.heartbeat import RankLost


@pytest.fixture
def rank_0_of_2(monkeypatch):
    values = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.distributed
def test_a_rank_that_stays_alone_says_so(run_ranks, root, tmp_path):
    job = [str(root / "launch/train.py"), "+experiment=smoke", f"run.root={tmp_path}", "run.timeout_minutes=0.05"]
    [output] = run_ranks(job, 1, env={"WORLD_SIZE": "2"}, status=1)
    assert "error: 2 ranks did not all meet at 127.0.0.1:" in output and "1/2 clients joined" in output
    assert "Traceback" not in output


def test_a_meeting_that_hangs_inside_pytorch_is_given_up(rank_0_of_2, monkeypatch):
    given_up = threading.Event()
    monkeypatch.setattr(launch, "_GRACE_S", 0.0)
    monkeypatch.setattr(launch, "_give_up", lambda minutes: given_up.set())
    monkeypatch.setattr(launch.deepspeed, "init_distributed", lambda **_: given_up.wait(60) or pytest.fail("never"))
    launch._meet(0.001)
    assert given_up.is_set()


def test_giving_up_speaks_and_ends_the_process(rank_0_of_2, monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    launch._give_up(0.5)
    assert ended == [1]
    said = capsys.readouterr().err
    assert "error: [rank 0] 2 ranks did not all meet at node1:29500 in run.timeout_minutes=0.5." in said


def test_no_meeting_is_given_up_after_it_has_come_about(rank_0_of_2, monkeypatch):
    monkeypatch.setattr(launch.deepspeed, "init_distributed", lambda **_: None)
    launch._meet(30)
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(RuntimeError("gloo connectFullMesh failed"), RankLost), (RuntimeError("no such device"), RuntimeError)],
)
def test_only_communication_errors_are_told_as_such(rank_0_of_2, monkeypatch, error, raised):
    def fail(**_):
        raise error

    monkeypatch.setattr(launch.deepspeed, "init_distributed", fail)
    with pytest.raises(raised) as caught:
        launch._meet(30)
    assert type(caught.value) is raised and str(error) in str(caught.value)


# Each process starts the next one of $CHAIN, under the name that stands there.
LINK = """
import os, subprocess, time
name, _, rest = os.environ["CHAIN"].partition("|")
if rest:
    environment = {**os.environ, "CHAIN": rest}
    command = [rest.partition("|")[0], "-c", os.environ["LINK"]]
    subprocess.Popen(command, executable=os.environ["PYTHON"], env=environment).wait()
else:
    from cut_dist.process import StopSignal
    stop = StopSignal()
    print(f"ready {stop.asked}", flush=True)
    while not stop.asked:
        time.sleep(0.05)
    print("asked to stop", flush=True)
"""


@pytest.mark.parametrize(
    "above",
    [
        ["deepspeed launch/train.py"],
        ["sshd: user@notty"],
        ["sshd-session: user@notty", "sh -c cd runs; python -m deepspeed.launcher.launch"],
    ],
)
def test_ranks_stop_when_what_started_their_launcher_ends(root, above):
    """A launcher that ssh started does not notice that the session is over, and its ranks would train on."""
    chain = [*above, "python -m deepspeed.launcher.launch", sys.executable]
    environment = {"CHAIN": "|".join(chain), "LINK": LINK, "PYTHON": sys.executable}
    process = subprocess.Popen(
        [chain[0], "-c", LINK], executable=sys.executable, text=True, stdout=subprocess.PIPE, start_new_session=True,
        env={**os.environ, **environment, "PYTHONPATH": str(root), "DS_ACCELERATOR": "cpu"},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready False\n"
        process.kill()
        process.wait()
        assert process.stdout.readline() == "asked to stop\n"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
