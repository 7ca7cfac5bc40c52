"""What the files of a round say while it goes on: counts, rate, cost; also where a stage ends while they are read."""

from __future__ import annotations

import pytest

from cut_dist.judges.base import Judged
from cut_dist.online import summary
from cut_dist.online.files import RoundFiles
from cut_dist.online.live import how_far
from cut_dist.online.stage import open_stage, partial_path
from cut_dist.online.summary import RoundSummary, read_round


@pytest.mark.parametrize(
    ("elapsed", "at_start", "said"),
    [
        (110.0, 0, "round 2: judge, 33 judged, 18.0 a minute, $1.25, 1 min 50 s"),
        (59.9, 23, "round 2: judge, 33 judged, 10.0 a minute, $1.25, 0 min 59 s"),  # only what this start has done
        (5.0, 33, "round 2: judge, 33 judged, $1.25, 0 min 05 s"),
    ],
)
def test_where_the_loop_is_in_words(elapsed, at_start, said):
    assert how_far(RoundSummary(2, judged=33, cost=1.25), "judge", elapsed, at_start) == said


def judge(files: RoundFiles, rows: list[Judged], finish: bool) -> None:
    with open_stage("judge", files.judgments, Judged, {}, {}) as stage:
        stage.append(rows)
        if finish:
            stage.finish(rows, {}, cost=sum(row.detail["cost"] for row in rows))


ROWS = [Judged(id, True, None, {"cost": 0.25}) for id in "abc"]


@pytest.mark.parametrize("finish", [False, True])
def test_counts_and_cost_of_a_stage_are_the_same_before_and_after_its_end(tmp_path, finish):
    files = RoundFiles(tmp_path, 1)
    judge(files, ROWS, finish)
    found = read_round(files)
    assert (found.judged, found.cost) == (3, 0.75)


def test_the_evaluation_costs_too(tmp_path):
    files = RoundFiles(tmp_path, 1)
    for output in (files.answers, files.evaluation / "win_rate" / "preferences.jsonl"):
        with open_stage("x", output, Judged, {}, {}) as stage:
            stage.finish(ROWS, {}, cost=0.5)
    assert read_round(files).cost == 1.0


def test_a_stage_that_ends_while_it_is_read_is_no_error(tmp_path, monkeypatch):
    files = RoundFiles(tmp_path, 1)
    judge(files, ROWS, finish=True)
    gone = partial_path(files.judgments)
    monkeypatch.setattr(summary, "partial_paths", lambda output: [gone])
    whole = files.judgments.read_bytes()
    files.judgments.unlink()
    assert read_round(files).judged == 0
    files.judgments.write_bytes(whole)
    assert read_round(files).judged == 3
