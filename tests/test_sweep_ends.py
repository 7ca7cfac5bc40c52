"""What the ends of a job's ranks make of the job."""

from __future__ import annotations

import signal

import pytest

from cut_dist.run_folder import mark_finished
from cut_dist.sweep.ends import GRACE_S, LAST_S, End, Ends, last_words, verdict


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def ended(*ends: End) -> Ends:
    known = Ends(len(ends))
    for end in ends:
        known.add(end)
    assert known.complete
    return known


def test_the_others_get_a_moment_after_a_failure_and_long_after_a_good_end():
    clock = Clock()
    ends = Ends(3, clock)
    clock.now += 10 * LAST_S
    assert not ends.overdue, "while all run there is no limit"
    ends.add(End(0, 0))
    clock.now += LAST_S - 1
    assert not ends.overdue
    ends.add(End(1, 1))
    assert not ends.overdue
    clock.now += GRACE_S + 0.1
    assert ends.overdue and not ends.complete


def test_ranks_that_all_end_well_without_the_last_one_are_overdue_in_the_end():
    clock = Clock()
    ends = Ends(2, clock)
    ends.add(End(1, 0))
    clock.now += LAST_S + 1
    assert ends.overdue


def test_the_cause_is_the_first_failure_that_is_no_echo_of_another():
    echo = End(0, 1, "RuntimeError: [../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3271")
    cause = End(2, 1, "ValueError: bad row")
    assert ended(echo, End(1, 0), cause, End(3, -9, "killed")).cause is cause
    assert ended(echo, End(1, 0)).cause is echo
    assert ended(End(0, 0), End(1, 0)).cause is None


def test_verdicts(tmp_path):
    well, killed, bad = End(0, 0), End(1, -signal.SIGKILL, "killed by SIGKILL"), End(1, 1, "E: x")
    assert verdict(ended(well), tmp_path, False) == ("stopped", 0, "saved and stopped as asked")
    assert verdict(ended(well, bad), tmp_path, False) == ("failed", 1, "rank 1: E: x")
    assert verdict(ended(well, bad), tmp_path, True)[0] == "failed", "a failure while stopping is one"
    assert verdict(ended(well, killed), tmp_path, True) == ("stopped", -9, "stopped before it could save")
    assert verdict(ended(well, killed), tmp_path, False) == ("failed", -9, "rank 1: killed by SIGKILL")
    mark_finished(tmp_path, {"steps": 1})
    assert verdict(ended(well), tmp_path, True) == ("finished", 0, None)
    assert verdict(ended(well, killed), tmp_path, True) == ("finished", -9, "after its end rank 1: killed by SIGKILL")


TRACEBACK = "Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA out of memory. Tried\nmore\n"


@pytest.mark.parametrize(
    ("printed", "status", "words"),
    [
        ("a\nerror: train.lr=1: too high.\nlater\n", 2, "train.lr=1: too high."),
        ("error: [rank 1] no such file\n", 1, "no such file"),
        (TRACEBACK, 1, "torch.OutOfMemoryError: CUDA out of memory. Tried"),
        ("[rank1]: ZeroDivisionError: made to fail\n", 1, "ZeroDivisionError: made to fail"),
        ("cut_dist.engine.MainRankError: disk\n[rank0]:[W924] destroy_process_group() was not called\n", 1,
         "cut_dist.engine.MainRankError: disk"),
        ("11:12:13 not finite: 3 steps in a row, so giving up.\n\n", 1, "not finite: 3 steps in a row, so giving up."),
        ("", 3, "exit status 3"),
        ("loading\n", -9, "killed by SIGKILL"),
        (TRACEBACK, -6, "killed by SIGABRT (torch.OutOfMemoryError: CUDA out of memory. Tried)"),
        ("fine\n", 0, None),
    ],
)  # fmt: skip
def test_last_words(tmp_path, printed, status, words):
    path = tmp_path / "console.log"
    path.write_text(f"error: of an earlier start\n{printed}")
    assert last_words(path, len("error: of an earlier start\n"), status) == words
