"""From responses and judgments to triplets; instructions of a round; the judging stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cut_dist.config_compose import compose_config
from cut_dist.data.readers import read_triplets
from cut_dist.judges.base import Judged
from cut_dist.online import judging
from cut_dist.online.config import OnlineConfig
from cut_dist.online.instructions import HELDOUT, sample_instructions
from cut_dist.online.judging import run_judging
from cut_dist.online.provenance import provenance
from cut_dist.online.records import Instruction, Response, read_records, write_records
from cut_dist.online.stage import StageError, read_manifest
from cut_dist.online.triplets import TripletRow, make_triplets


def config(*overrides: str) -> OnlineConfig:
    return compose_config("online", ["+experiment=online_smoke", *overrides], OnlineConfig)


def response(id: str, text: str = "an answer", **metadata) -> Response:
    return Response(id, id, f"Do {id}.", text, "stop", 3, 2, {"seed": 1}, metadata)


def judged_rows(tmp_path: Path, pairs: list[tuple[Response, Judged]], name: str = "") -> tuple[Path, Path]:
    responses, judgments = tmp_path / f"responses{name}.jsonl", tmp_path / f"judgments{name}.jsonl"
    write_records(responses, [pair[0] for pair in pairs])
    write_records(judgments, [pair[1] for pair in pairs])
    return responses, judgments


def test_verdicts_become_align_p_and_align_n_and_the_rest_is_counted(tmp_path):
    pairs = [
        (response("a"), Judged("a", True, None)),
        (response("b"), Judged("b", False, "The word “an” is wrong.")),
        (response("c"), Judged("c", None, None, {"reason": "malformed"})),
        (response("d", "  "), Judged("d", False, "There is no answer.")),
        (response("e"), Judged("e", True, "Fine, nothing to add.")),
        (response("f"), Judged("f", False, "Perfect. Or is it?")),
    ]
    output = tmp_path / "triplets.jsonl"
    make_triplets(config(), 1, *judged_rows(tmp_path, pairs), [], output)
    rows = read_records(output, TripletRow)
    assert [(row.id, row.judgment) for row in rows] == [("a", None), ("b", "The word “an” is wrong."), ("e", None)]
    assert read_manifest(output)["counts"] == {
        "align_n": 1, "align_p": 2, "from_earlier_rounds": 0, "no verdict": 1, "empty response": 1,
        'rejected in words that begin with "Perfect."': 1,
    }  # fmt: skip
    triplets, rejects = read_triplets(str(output))  # as training reads it
    assert [each.id for each in triplets] == ["a", "b", "e"] and not rejects
    made = provenance(output)
    assert made["stage"] == "triplets" and set(made["inputs"]) == {"responses", "judgments"}
    assert made["inputs"]["responses"]["made_by"] is None


def test_earlier_rounds_are_mixed_in_once_each_and_the_same_again(tmp_path):
    earlier = []
    for number in (1, 2, 3):
        pairs = [(response(f"{number}-{i}"), Judged(f"{number}-{i}", True, None)) for i in range(20)]
        output = tmp_path / f"triplets{number}.jsonl"
        make_triplets(
            config("online.mix_earlier=0.5"), number, *judged_rows(tmp_path, pairs, str(number)), earlier, output
        )
        earlier.append(output)
    rows = read_records(earlier[2], TripletRow)
    assert [row.round for row in rows].count(3) == 20
    own, mixed = rows[:20], rows[20:]
    assert len(mixed) == 20 and {row.round for row in mixed} == {1, 2}  # half of the 40 that rounds 1 and 2 made
    assert len({row.id for row in rows}) == 40 and {row.round for row in own} == {3}
    again = tmp_path / "again.jsonl"
    files = tmp_path / "responses3.jsonl", tmp_path / "judgments3.jsonl"
    make_triplets(config("online.mix_earlier=0.5"), 3, *files, earlier[:2], again)
    assert again.read_bytes() == earlier[2].read_bytes()


def test_where_they_come_from_is_told_of_files_of_the_same_name_and_of_a_folder_that_was_moved(tmp_path):
    cfg = config("instructions=file", f"instructions.path={numbered(tmp_path, 'instructions.jsonl', 0, 99)}")
    rounds, earlier = tmp_path / "x", []
    sample_instructions(cfg, 1, rounds / "round_1" / "instructions.jsonl")
    for number in (1, 2):
        folder = rounds / f"round_{number}"
        pairs = [(response(f"{number}-{i}"), Judged(f"{number}-{i}", True, None)) for i in range(4)]
        files = judged_rows(folder, pairs)
        make_triplets(config("online.mix_earlier=0.5"), number, *files, earlier, folder / "triplets.jsonl")
        earlier.append(folder / "triplets.jsonl")
    moved = rounds.rename(tmp_path / "moved")
    made = provenance(moved / "round_1" / "instructions.jsonl")
    assert made["inputs"]["instructions"]["made_by"] is None
    first = provenance(moved / "round_2" / "triplets.jsonl")["inputs"]["round_1"]["made_by"]
    assert first == provenance(moved / "round_1" / "triplets.jsonl") and first["settings"]["round"] == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["instructions.heldout=0"], "nothing is held out .*: give instructions.heldout, or"),
        (["instructions=file", "instructions.path=x"], "nothing is held out .*: give instructions.heldout_path, or"),
        (
            ["instructions=file", "instructions.path=x", "instructions.heldout_path={bare}", "judge=human"],
            "bare: the instruction 'a': .* the suite verifiable measures by metadata.checks",
        ),
    ],
)
def test_an_evaluation_that_could_not_measure_is_refused_at_the_start(tmp_path, overrides, said):
    write_records(tmp_path / "bare", [Instruction("a", "Do it.")])
    cfg = config(*(each.format(bare=tmp_path / "bare") for each in overrides))
    with pytest.raises(StageError, match=said):
        sample_instructions(cfg, HELDOUT, tmp_path / "heldout.jsonl")


def numbered(tmp_path: Path, name: str, start: int, count: int) -> str:
    checks = {"checks": [{"kind": "no_commas", "params": {}}]}
    write_records(tmp_path / name, [Instruction(str(i), f"Do {i}.", checks) for i in range(start, start + count)])
    return str(tmp_path / name)


def test_rounds_draw_different_instructions_from_a_file(tmp_path):
    path, heldout = numbered(tmp_path, "all.jsonl", 0, 25), numbered(tmp_path, "heldout.jsonl", 100, 5)
    cfg = config(
        "instructions=file", f"instructions.path={path}", f"instructions.heldout_path={heldout}",
        "instructions.heldout=0", "instructions.per_round=8", "online.rounds=3",
    )  # fmt: skip
    drawn = []
    for number in (1, 2, 3, HELDOUT):
        sample_instructions(cfg, number, tmp_path / f"{number}.jsonl")
        drawn.append([row.id for row in read_records(tmp_path / f"{number}.jsonl", Instruction)])
    assert [len(ids) for ids in drawn] == [8, 8, 8, 5]
    assert len({id for ids in drawn for id in ids}) == 29
    assert drawn[0] != sorted(drawn[0], key=int)


@pytest.mark.parametrize("source", ["verifiable", "file"])
def test_instructions_are_the_same_again_and_others_with_another_seed(source, tmp_path):
    given = (
        [] if source == "verifiable" else ["instructions=file", f"instructions.path={numbered(tmp_path, 'a', 0, 99)}"]
    )
    for name, seed in (("x", 1), ("y", 1), ("z", 2)):
        sample_instructions(config(*given, f"seed={seed}"), 2, tmp_path / name)
    x, y, z = ((tmp_path / name).read_bytes() for name in "xyz")
    assert x == y != z and x.count(b"\n") == 12


def test_too_few_instructions_and_shared_ones_are_refused(tmp_path):
    path = numbered(tmp_path, "all.jsonl", 0, 25)
    given = ["instructions=file", f"instructions.path={path}", "instructions.per_round=13"]
    with pytest.raises(StageError, match="has 25 instructions; 2 rounds of instructions.per_round=13 take 26"):
        sample_instructions(config(*given), 1, tmp_path / "1.jsonl")
    heldout = f"instructions.heldout_path={numbered(tmp_path, 'heldout.jsonl', 24, 3)}"
    with pytest.raises(StageError, match="1 instructions are both in .* such as 'Do 24.'"):
        sample_instructions(config(*given, heldout, "instructions.per_round=5"), 1, tmp_path / "1.jsonl")


@pytest.mark.parametrize(
    ("metadata", "said"),
    [({}, "'7': 'checks' is empty"), ({"checks": [{"kind": "no_comas"}]}, "'7': .*did you mean 'no_commas'")],
)
def test_instructions_that_the_verifiable_judge_could_not_judge_are_refused_at_once(metadata, said, tmp_path):
    write_records(tmp_path / "all.jsonl", [Instruction(str(i), f"Do {i}.", metadata) for i in range(7, 99)])
    given = ["instructions=file", f"instructions.path={tmp_path}/all.jsonl"]
    with pytest.raises(StageError, match=f"all.jsonl: the instruction {said}"):
        sample_instructions(config(*given), 1, tmp_path / "1.jsonl")
    sample_instructions(config(*given, "judge=human"), 1, tmp_path / "1.jsonl")


class Recorded:
    """A judge that says how often it was asked, and breaks after so many."""

    def __init__(self, breaks_after: int, verdict: bool | None = True) -> None:
        self.asked: list[str] = []
        self.left, self.verdict = breaks_after, verdict

    def judge(self, requests, done):
        for request in reversed([each for each in requests if each.id not in done]):  # in an order of its own
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.asked.append(request.id)
            assert request.instruction == f"Do {request.id}." and request.response == "an answer"
            yield Judged(request.id, self.verdict, None, {"cost": 0.25, "reason": "no words"})


def test_a_response_is_judged_once_whatever_interrupts(tmp_path, monkeypatch):
    source, output = tmp_path / "responses.jsonl", tmp_path / "judgments.jsonl"
    write_records(source, [response(str(i)) for i in range(10)])
    asked = []
    for breaks_after in (3, 4, 99):
        judge = Recorded(breaks_after)
        monkeypatch.setattr(judging, "make_judge", lambda cfg, judge=judge: judge)
        try:
            run_judging(config(), source, output)
        except KeyboardInterrupt:
            assert not output.exists()
        asked += judge.asked
    assert sorted(asked) == sorted(map(str, range(10)))
    assert [judged.id for judged in read_records(output, Judged)] == [str(i) for i in range(10)]
    manifest = read_manifest(output)
    assert (manifest["counts"], manifest["cost"]) == (
        {"satisfactory": 10, "unsatisfactory": 0, "set_aside": 0},
        2.5,
    )
    monkeypatch.setattr(judging, "make_judge", lambda cfg: pytest.fail("nothing is left to judge"))
    run_judging(config(), source, output)


def test_a_judge_that_always_says_the_same_is_doubted(tmp_path, monkeypatch, caplog):
    for count in (19, 20):
        source = tmp_path / f"{count}.jsonl"
        write_records(source, [response(str(i)) for i in range(count)])
        monkeypatch.setattr(judging, "make_judge", lambda cfg: Recorded(99))
        run_judging(config(), source, tmp_path / f"{count}-judged.jsonl")
        assert ("says the same of all 20 responses" in caplog.text) == (count == 20)


def test_too_many_without_a_verdict_stop_the_stage_until_the_limit_is_raised(tmp_path, monkeypatch):
    source, output = tmp_path / "responses.jsonl", tmp_path / "judgments.jsonl"
    write_records(source, [response(str(i)) for i in range(10)])
    monkeypatch.setattr(judging, "make_judge", lambda cfg: Recorded(99, None))
    with pytest.raises(StageError, match=r"10 of 10 responses got no verdict, .*: no words \(10\)"):
        run_judging(config(), source, output)
    monkeypatch.setattr(judging, "make_judge", lambda cfg: pytest.fail("all were asked"))
    run_judging(config("judge.max_set_aside=1"), source, output)
    assert read_manifest(output)["counts"] ["set_aside"] == 10


def test_the_verifiable_judge_judges_by_the_metadata(tmp_path):
    source, output = tmp_path / "responses.jsonl", tmp_path / "judgments.jsonl"
    checks = [{"kind": "no_commas", "params": {}}]
    write_records(source, [response("a", "One, two.", checks=checks), response("b", "One two.", checks=checks)])
    run_judging(config(), source, output)
    first, second = read_records(output, Judged)
    assert (first.satisfactory, second.satisfactory, second.judgment) == (False, True, None)
    assert "comma" in first.judgment
    assert json.loads(output.read_text().splitlines()[0])["detail"] == {
        "loose": False,
        "problems": [{"kind": "no_commas", "spans": [[0, 4]]}],
    }
