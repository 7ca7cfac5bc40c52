"""Suites by themselves: what they read, what they count, what they hand over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cut_dist.data.triplets import DataError
from cut_dist.evaluation import alpaca_eval, rouge, verifiable, win_rate
from cut_dist.judges.base import Judged
from cut_dist.judges.pairwise import Pair, Preference, VerdictPairs, VerifiablePairs, combined
from cut_dist.online.records import Response, write_records
from cut_dist.online.stage import StageError


def response(id: str, text: str, *, instruction: str = "Say it.", end: str = "stop", **metadata) -> Response:
    return Response(id, id, instruction, text, end, 3, 4, {}, metadata)


# verifiable

NO_COMMAS = {"kind": "no_commas", "params": {}}
NO_EXCLAMATION = {"kind": "no_exclamation_marks", "params": {}}


def test_verifiable_counts_instructions_and_checks():
    found = verifiable.score(
        [
            response("a", "Fine.", checks=[NO_COMMAS, NO_EXCLAMATION]),
            response("b", "Oh, no", checks=[NO_COMMAS, NO_EXCLAMATION], end="length"),
            response("c", "Sure, here it is:\nFine.", checks=[NO_COMMAS]),  # loosely right: without its first line
            response("d", "No, no!", checks=[NO_COMMAS, NO_EXCLAMATION]),
        ]
    )
    assert (found["strict"], found["loose"], found["instructions"]) == (1 / 4, 2 / 4, 4)
    # 7 checks: a 2 of 2, b 1 of 2, c 0 of 1 (loosely 1), d 0 of 2
    assert (found["check_strict"], found["check_loose"], found["checks"]) == (3 / 7, 4 / 7, 7)
    assert found["truncated"] == 1
    assert found["by_kind"]["no_exclamation_marks"] == {"checks": 3, "strict": 2 / 3, "loose": 2 / 3}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no instructions to verify"),
        ([response("a", "x")], "'a' has no metadata.checks"),
        ([response("a", "x", checks=[{"kind": "no_comas"}])], "'a': .*no_comas"),
    ],
)
def test_verifiable_says_what_it_can_not_verify(rows, said):
    with pytest.raises(DataError, match=said):
        verifiable.score(rows)


# alpaca_eval

SET = [
    {"dataset": "helpful_base", "instruction": "Say \"hi\",\n=1+1 ü", "output": "hi", "generator": "text_davinci_003"},
    {"dataset": "koala", "instruction": "Count.", "output": "1 2", "generator": "text_davinci_003"},
]  # fmt: skip


@pytest.fixture
def alpaca_set(tmp_path: Path) -> str:
    path = tmp_path / "set of alpaca_eval.json"
    path.write_text(json.dumps(SET))
    return str(path)


def test_the_hand_over_has_the_tools_form_and_names_its_command(alpaca_set, tmp_path):
    asked = alpaca_eval.read_instructions(alpaca_set)
    assert [row.instruction for row in asked] == [row["instruction"] for row in SET]
    answers = [
        Response(
            row.id, row.id, row.instruction, f"answer {n} \u2028", "length" if n else "stop", 1, 1, {}, row.metadata
        )
        for n, row in enumerate(asked)
    ]
    found = alpaca_eval.hand_over(answers, "online_round1/default", alpaca_set, tmp_path)
    # what the tool's model_outputs are: a list of objects, one generator, merged with the reference by instruction
    written = json.loads((tmp_path / "alpaca_eval.json").read_text())
    assert [list(row) for row in written] == [["dataset", "instruction", "output", "generator"]] * 2
    assert [row["instruction"] for row in written] == [row["instruction"] for row in SET]
    assert [row["dataset"] for row in written] == ["helpful_base", "koala"]
    assert [row["output"] for row in written] == ["answer 0 \u2028", "answer 1 \u2028"]
    assert {row["generator"] for row in written} == {"online_round1/default"}
    assert (found["answers"], found["truncated"]) == (2, 1)
    assert found["command"] == (
        f"IS_ALPACA_EVAL_2=False alpaca_eval --model_outputs {tmp_path}/alpaca_eval.json "
        f"--reference_outputs '{alpaca_set}' --annotators_config alpaca_eval_gpt4"
    )


def test_another_reference_is_compared_with_by_version_2(tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps([row | {"generator": "gpt4_1106_preview"} for row in SET]))
    rows = alpaca_eval.read_instructions(str(path))
    answers = [Response(row.id, row.id, row.instruction, "x", "stop", 1, 1, {}, row.metadata) for row in rows]
    command = alpaca_eval.hand_over(answers, "m", str(path), tmp_path)["command"]
    assert command.startswith("IS_ALPACA_EVAL_2=True ") and command.endswith("weighted_alpaca_eval_gpt4_turbo")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"output": "x"}, 'it has no "instruction"'),
        ({"instruction": "  "}, 'it has no "instruction"'),
        ({"instruction": "Sum up:", "input": "a text"}, 'its "input" is not part of the instruction'),
    ],
)
def test_what_is_not_alpaca_evals_set_is_named(tmp_path, row, said):
    path = tmp_path / "set.json"
    path.write_text(json.dumps([SET[0], row, row]))
    with pytest.raises(DataError, match=r"set\.json.*not AlpacaEval's") as caught:
        alpaca_eval.read_instructions(str(path))
    assert str(caught.value).count(said) == 2


# rouge


def critiqued(passage: str, *questions: dict, id: str = "rec") -> dict:
    return {"id": id, "data": {"passage": {"text": passage}, "questions": list(questions)}}


def question(text: str, *answers: tuple[str, dict], rankings: list[float]) -> dict:
    listed = [{"answer": answer, "feedback": feedback} for answer, feedback in answers]
    return {"question": text, "answers": listed, "rankings": rankings}


def critique(text: str, refinement: str | None) -> dict:
    return {"text": text, "refinement": refinement}


@pytest.fixture
def split(tmp_path: Path) -> str:
    flawed = {"rating": 3, "critiques": [critique("Too short.", "Mid."), critique("No end.", "The end is near.")]}
    records = [
        critiqued(
            "A passage.",
            question("Q1", ("The end.", flawed), ("worse", {"rating": 1}), rankings=[2, 1]),
            question("Q2", ("bad", {"rating": 1}), ("All right.", {"rating": 7, "critiques": []}), rankings=[1, 2]),
            question("Q3", ("", {"rating": 7, "critiques": []}), rankings=[1]),  # no answer
            question("Q4", ("x", {"critiques": [critique("Bad.", "")]}), rankings=[1]),  # nobody corrected it
        ),
        critiqued("Another.", question("Q5", ("skipped", {"skip": True}), rankings=[1]), id="rec2"),
    ]
    path = tmp_path / "critiques.test.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize(
    ("reference", "wanted"),
    [
        ("refinement", [("rec.0", "The end is near."), ("rec.1", "All right.")]),
        ("answer", [("rec.0", "The end."), ("rec.1", "All right."), ("rec.3", "x")]),
    ],
)
def test_the_references_are_those_of_the_highest_ranked_answers(split, reference, wanted):
    rows = rouge.read_instructions(split, reference)
    assert [(row.id, row.metadata["reference"]) for row in rows] == wanted
    assert rows[0].instruction == "A passage.\nQ1"


def test_what_is_no_split_of_critiques_is_named(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"id": 1, "instruction": "x"}\nnot json\n')
    with pytest.raises(DataError, match="no summarization critiques") as caught:
        rouge.read_instructions(str(path), "answer")
    assert "other.jsonl:1: missing field" in str(caught.value) and "other.jsonl:2:" in str(caught.value)
    path.write_text(json.dumps(critiqued("p", question("Q", ("a", {"skip": True}), rankings=[1]))))
    with pytest.raises(DataError, match="no question with a reference"):
        rouge.read_instructions(str(path), "answer")


def test_rouge_is_the_mean_f1_of_all_answers_in_percent():
    # "the cat sat" against "the cat sat on mats": 3 of 3 words are in it, 3 of its 5 are met: F1 = 2·1·.6/1.6 = 3/4;
    # bigrams 2 of 2 and 2 of 4: 2/3; the longest common subsequence is 3 words: 3/4. The other answer has nothing.
    found = rouge.score(
        [
            response("a", "The cat sat.", reference="the cat sat on mats"),
            response("b", "unrelated", reference="something else", end="length"),
        ]
    )
    assert [found[name] for name in ("R1", "R2", "RL", "RLsum")] == pytest.approx([37.5, 100 / 3, 37.5, 37.5])
    assert (found["answers"], found["truncated"]) == (2, 1)


def test_rouge_counts_words_as_they_are_and_not_their_stems():
    assert rouge.score([response("a", "cats", reference="cat")])["R1"] == 0


def test_rouge_lsum_takes_lines_one_by_one():
    # in other order the lines share only one as a subsequence, but each line is found whole
    found = rouge.score([response("a", "c d\na b", reference="a b\nc d")])
    assert (found["RL"], found["RLsum"]) == pytest.approx((50, 100))


# win_rate


def preferences(wins: int, ties: int, losses: int, inconsistent: int = 0, undecided: int = 0) -> list[Preference]:
    kinds = [
        (wins, "win", ["win", "win"]),
        (ties, "tie", ["tie", "tie"]),
        (losses, "loss", ["loss", "loss"]),
        (inconsistent, "tie", ["win", "loss"]),
        (undecided, None, ["win", None]),
    ]
    return [Preference(f"{n}{kind}", kind, orders) for count, kind, orders in kinds for n in range(count)]


def test_the_win_rate_counts_a_tie_half_and_leaves_out_what_has_no_verdict():
    found = win_rate.summarise(preferences(wins=5, ties=1, losses=2, inconsistent=2, undecided=3))
    assert found["win_rate"] == (5 + 3 / 2) / 10
    counts = {name: found[name] for name in ("wins", "ties", "losses", "inconsistent", "undecided")}
    assert counts == {"wins": 5, "ties": 3, "losses": 2, "inconsistent": 2, "undecided": 3}
    nothing = win_rate.summarise(preferences(0, 0, 0, undecided=2))
    assert (nothing["win_rate"], nothing["low"], nothing["high"], nothing["undecided"]) == (None, None, None, 2)


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [
        (0.5, 100, 0.403832, 0.596168),  # z² = 3.841459: .5 ± 1.959964 / (2 √(100 + z²))
        (1.0, 10, 0.722467, 1.0),  # 10 / (10 + z²)
        (0.0, 10, 0.0, 0.277533),
    ],
)
def test_wilsons_interval(share, count, low, high):
    assert win_rate.wilson(share, count) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(
    ("orders", "outcome"),
    [
        (["win", "win"], "win"), (["loss", "loss"], "loss"), (["win", "loss"], "tie"), (["win", "tie"], "tie"),
        (["tie", "tie"], "tie"), (["win", None], None), (["loss"], "loss"),
    ],
)  # fmt: skip
def test_only_what_both_orders_say_counts(orders, outcome):
    assert combined(orders) == outcome


def test_fewer_problems_win_by_the_checks():
    checks = {"checks": [NO_COMMAS, NO_EXCLAMATION]}
    texts = {"better": ("a, b", "a, b!"), "worse": ("a, b!", "a"), "same": ("a, b", "b!")}
    pairs = [Pair(id, "Say.", *both, checks) for id, both in texts.items()]
    found = list(VerifiablePairs().compare([*pairs, Pair("done", "Say.", "", "")], {"done"}))
    assert [(row.id, row.outcome) for row in found] == [("better", "win"), ("worse", "loss"), ("same", "tie")]


class Verdicts:
    """A judge of single responses that says what the response says, and answers in reverse order."""

    def judge(self, requests, done=frozenset()):
        for request in reversed(requests):
            if request.id not in done:
                verdict = {"yes": True, "no": False, "?": None}[request.response]
                yield Judged(request.id, verdict, "Bad." if verdict is False else None)


def test_a_judge_of_single_responses_compares_by_its_verdicts():
    sides = [("yes", "no"), ("no", "yes"), ("no", "no"), ("yes", "yes"), ("?", "yes"), ("no", "?")]
    pairs = [Pair(f"{a}/{b}", "Say.", a, b) for a, b in sides]
    found = {row.id: row.outcome for row in VerdictPairs(Verdicts()).compare(pairs, {"yes/yes"})}
    assert found == {"yes/no": "win", "no/yes": "loss", "no/no": "tie", "?/yes": None, "no/?": None}


def test_answers_are_paired_by_instruction(tmp_path):
    ours = [response("a", "1"), response("b", "2", checks=[])]
    rival = tmp_path / "rival.jsonl"
    second = Response("a#2", "a", "Say it.", "3'", "stop", 1, 1)
    write_records(rival, [response("b", "2'"), response("a", "1'"), second, response("unused", "x")])
    assert win_rate.pair_up(ours, rival) == [
        Pair("a", "Say it.", "1", "1'"), Pair("b", "Say it.", "2", "2'", {"checks": []}),
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"has no response to 'c' \(1 of 3 instructions\)"):
        win_rate.pair_up([*ours, response("c", "x")], rival)
    with pytest.raises(DataError, match="was asked something else under the id 'a'"):
        win_rate.pair_up([response("a", "1", instruction="Other.")], rival)


class Counting:
    """Prefers ours, breaks down after `limit` pairs, and counts what it was asked."""

    def __init__(self, limit: int) -> None:
        self.limit, self.asked = limit, []

    def compare(self, pairs, done=frozenset()):
        for pair in pairs:
            if pair.id not in done:
                if len(self.asked) == self.limit:
                    raise KeyboardInterrupt
                self.asked.append(pair.id)
                yield Preference(pair.id, "win", ["win", "win"], {"cost": 0.25})


def test_no_pair_is_judged_twice_and_identical_ones_never(tmp_path):
    source = tmp_path / "responses.jsonl"
    write_records(source, [response("a", "x")])
    pairs = [Pair(id, "Say.", f"ours {id}" if id != "same" else "x", "x") for id in ("a", "same", "b", "c")]

    def start(limit: int, **settings) -> tuple[list[Preference] | None, list[str]]:
        judge = Counting(limit)
        try:
            found = win_rate.compare(pairs, judge, tmp_path / "out", {"ours": source}, settings)
        except KeyboardInterrupt:
            found = None
        return found, judge.asked

    assert start(1) == (None, ["a"])
    found, asked = start(9)
    assert asked == ["b", "c"]
    assert [(row.id, row.outcome) for row in found] == [("a", "win"), ("same", "tie"), ("b", "win"), ("c", "win")]
    assert start(0) == (found, [])
    with pytest.raises(StageError, match="was made with other inputs or settings"):
        start(9, judge="another")
