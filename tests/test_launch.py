"""`cut_dist.engine.launch`: ranks that never meet end with a sentence, whatever PyTorch does."""

from __future__ import annotations

import os
import threading

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
