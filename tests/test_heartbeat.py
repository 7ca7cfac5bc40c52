"""`cut_dist.heartbeat`: what is left of a rank that fell silent, and what another rank says of it."""

from __future__ import annotations

import json
import os
import re
import time
from types import SimpleNamespace

import pytest
from torch.distributed import DistBackendError

from cut_dist import heartbeat
from cut_dist.heartbeat import Beat, Heartbeat, RankLost, explain, read_beats

TIMED_OUT = "[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 15000ms for recv operation to complete"
CLOSED = "[gloo/transport/tcp/pair.cc:537] Connection closed by peer [10.0.0.2]:4244"


def beat(rank: int, *, age: float = 0.0, step: int = 7, at: str = "train.py:117", ended: str = "") -> Beat:
    return Beat(rank, f"node{rank}", 100 + rank, step, at, time.time() - age, ended)


def ranks(rank: int) -> SimpleNamespace:
    return SimpleNamespace(rank=rank, world_size=3)


def leave(folder, *beats: Beat) -> None:
    (folder / "ranks").mkdir(exist_ok=True)
    for each in beats:
        (folder / "ranks" / f"{each.rank:05d}.json").write_text(json.dumps(vars(each)))


def test_a_clean_end_leaves_nothing(tmp_path):
    with Heartbeat(tmp_path, ranks(0), 30, step=3):
        [written] = read_beats(tmp_path)
        assert (written.step, written.pid, written.ended) == (3, os.getpid(), "")
    assert not (tmp_path / "ranks").exists()


def test_the_thread_writes_step_and_place(tmp_path):
    with Heartbeat(tmp_path, ranks(2), 0.001) as mine:
        first = read_beats(tmp_path)[0]
        mine.step = 9
        deadline = time.monotonic() + 20
        while read_beats(tmp_path)[0].step != 9:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert read_beats(tmp_path)[0].time > first.time
        assert first.at == "outside cut_dist"


@pytest.mark.parametrize("error", [RuntimeError(TIMED_OUT), DistBackendError("NCCL error")])
def test_a_communication_error_becomes_a_sentence_with_the_silent_rank_and_the_raw_words(tmp_path, error):
    leave(tmp_path, beat(1, age=40), beat(2))
    with pytest.raises(RankLost) as caught, Heartbeat(tmp_path, ranks(0), 0.5, step=8):
        raise error
    said = str(caught.value)
    assert said.startswith("After step 8 nothing is heard from rank 1 (process 101 on node1) for 40 s, since step 7,")
    assert "the same command continues" in said and str(error) in said and "node2" not in said
    assert caught.value.__cause__ is error
    assert read_beats(tmp_path)[0].ended == "RankLost"


def test_no_secret_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "canary-1234567890")
    with pytest.raises(ValueError), Heartbeat(tmp_path, ranks(1), 30):
        raise ValueError("no such place: https://hub/?token=canary-1234567890")
    assert "canary" not in (tmp_path / "ranks/00001.json").read_text() and "ValueError" in read_beats(tmp_path)[0].ended


def test_another_error_passes_and_is_left_for_the_others_to_tell(tmp_path):
    with pytest.raises(ZeroDivisionError), Heartbeat(tmp_path, ranks(1), 30):
        raise ZeroDivisionError("made to fail")
    with pytest.raises(RankLost) as caught, Heartbeat(tmp_path, ranks(0), 30):
        raise RuntimeError(CLOSED)
    assert re.search(r"rank 1 .* ended, at step 0, with ZeroDivisionError: made to fail", str(caught.value))


def test_a_process_that_was_killed_is_told_from_a_hang(tmp_path):
    leave(tmp_path, beat(1))
    with pytest.raises(RankLost) as caught, Heartbeat(tmp_path, ranks(0), 30):
        raise RuntimeError(CLOSED)
    assert "rank 1 (process 101 on node1) ended without an error of its own: killed" in str(caught.value)


def test_who_is_waited_for():
    everyone = [beat(rank) for rank in range(3)]
    assert "network between node0, node1, node2" in explain(everyone, 0, 30)
    assert "rank 2 (process 102 on node2) is at step 6, evaluate.py:40" in explain(
        [*everyone[:2], beat(2, step=6, at="evaluate.py:40")], 0, 30
    )
    many = [beat(0), *(beat(rank, age=99) for rank in range(1, 9))]
    assert explain(many, 0, 30).count("for 99 s") == 4 and "and 4 more" in explain(many, 0, 30)
    assert "no other rank" in explain([beat(0)], 0, 30)


def test_half_way_to_the_timeout_the_first_living_rank_says_who_is_silent(tmp_path, caplog):
    leave(tmp_path, beat(0, age=1000), beat(2))
    with Heartbeat(tmp_path, ranks(1), 0.005):
        deadline = time.monotonic() + 20
        while not caplog.records:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    [record] = caplog.records
    assert "[rank 1] no progress after step 0" in record.message and "rank 0 (process 100 on node0)" in record.message


def test_a_damaged_file_is_passed_over(tmp_path):
    leave(tmp_path, beat(1))
    (tmp_path / "ranks/00000.json").write_text('{"rank"')
    assert [each.rank for each in read_beats(tmp_path)] == [1]


def test_only_communication_errors_are_taken_for_such():
    assert heartbeat.is_communication_error(RuntimeError(CLOSED))
    assert not heartbeat.is_communication_error(RuntimeError("CUDA out of memory"))
    assert not heartbeat.is_communication_error(ValueError("gloo"))
