"""The schema: what is a triplet, what is not and why, and how the report of bad rows reads."""

from __future__ import annotations

import pytest

from cut_dist.data.triplets import BadRowsError, Reject, RowError, Triplet, make_triplet, reject_table

COLUMNS = {"instruction": "q", "input": "more", "response": "a", "judgment": "verdict", "id": "id"}
GOOD = {"id": 7, "q": "Name a colour.", "more": "", "a": "Blue.", "verdict": "Too short."}


def triplet_of(**changes: object) -> Triplet:
    row = {**GOOD, **changes}
    return make_triplet({k: v for k, v in row.items() if v is not ...}, COLUMNS, "made", "file:3")


def test_a_row_becomes_a_triplet_under_the_files_own_field_names():
    triplet = triplet_of(more="In French.", surplus=[1])
    assert triplet == Triplet("7", "Name a colour.\nIn French.", "Blue.", "Too short.", "file:3")
    assert triplet.is_negative


@pytest.mark.parametrize("more", ["", None, ...])
def test_an_absent_input_adds_nothing_to_the_instruction(more):
    assert triplet_of(more=more).instruction == "Name a colour."


@pytest.mark.parametrize("verdict", [None, "Perfect.", "Perfect. Nothing to add."])
def test_null_and_praise_that_begins_with_perfect_are_align_p(verdict):
    triplet = triplet_of(verdict=verdict)
    assert triplet.judgment is None
    assert not triplet.is_negative


@pytest.mark.parametrize(
    "verdict", ["Perfectly wrong.", "Not Perfect.", "perfect. almost, but the date is wrong"]
)
def test_other_judgments_are_align_n_verbatim(verdict):
    assert triplet_of(verdict=verdict).judgment == verdict


def test_a_row_without_an_id_takes_the_one_offered():
    assert triplet_of(id=...).id == "made"
    assert triplet_of(id=None).id == "made"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"q": ...}, 'missing field: "q"; this row has: id, more, a, verdict'),
        ({"a": ..., "x": 1, "y": 2}, 'missing field: "a"; this row has: id, q, more, verdict, x, y'),
        (
            {"verdict": ..., "verdicts": "No.", "x": 1},
            'missing field: "verdict" (null where the response is satisfactory); '
            'this row has: id, q, more, a, verdicts, x; did you mean "verdicts"?',
        ),
        (
            {"verdict": ..., "critique": "No."},
            'missing field: "verdict" (null where the response is satisfactory); '
            'this row has: id, q, more, a, critique; did you mean "critique"?',
        ),
        ({"a": None}, 'wrong type: "a" is null, expected text'),
        ({"a": ["x"]}, 'wrong type: "a" is a list, expected text'),
        ({"q": 4}, 'wrong type: "q" is a number, expected text'),
        ({"verdict": True}, 'wrong type: "verdict" is a boolean, expected text'),
        ({"more": {"x": 1}}, 'wrong type: "more" is an object, expected text'),
        ({"id": 1.5}, 'wrong type: "id" is a number, expected text or an integer'),
        ({"id": True}, 'wrong type: "id" is a boolean, expected text or an integer'),
        ({"id": " "}, 'empty id: "id"; leave the field out to have one made'),
        ({"q": "\n\t"}, 'empty instruction: "q" has no visible text'),
        ({"a": ""}, 'empty response: "a" has no visible text'),
        ({"verdict": " "}, 'empty judgment: "verdict"; write null where the response is satisfactory'),
        ({"a": "x\0y"}, 'NUL byte: in "a"'),
        ({"q": "ab\ud83d"}, 'lone surrogate: U+D83D at character 3 of "q"'),
        ({"id": "\udc80"}, 'lone surrogate: U+DC80 at character 1 of "id"'),
    ],
)
def test_a_bad_row_is_refused_with_its_field_and_reason(changes, reason):
    with pytest.raises(RowError) as error:
        triplet_of(**changes)
    assert str(error.value) == reason


@pytest.mark.parametrize("verdict", ["perfect", "Perfect!", " PERFECT. ", '"Perfect"'])
def test_praise_in_another_spelling_is_refused_rather_than_trained_on_as_blame(verdict):
    with pytest.raises(RowError, match="^ambiguous judgment: "):
        triplet_of(verdict=verdict)


@pytest.mark.parametrize(
    ("source", "file", "line", "index"),
    [
        ("a/b.jsonl:12", "a/b.jsonl", 12, None),
        ("b.json:744[106]", "b.json", 744, 106),
        ("t.parquet[3]", "t.parquet", 0, 3),
        ("odd[1]:2.jsonl:5", "odd[1]:2.jsonl", 5, None),
    ],
)
def test_a_reject_knows_its_place_and_writes_it_as_it_was(source, file, line, index):
    reject = Reject.at(source, "empty response: x", "text")
    assert (reject.file, reject.line, reject.index) == (file, line, index)
    assert reject.place == source
    assert reject.kind == "empty response"


def test_an_excerpt_is_short_and_printable_whatever_the_row_holds():
    excerpt = Reject.at("f:1", "r", "a\nb\0\ud800" + "é" * 500).excerpt
    assert excerpt.startswith("a\\nb\\x00\\ud800é")
    assert len(excerpt) < 150
    excerpt.encode("utf-8")


def test_the_report_lists_the_first_twenty_and_counts_all_by_kind():
    rejects = [Reject.at(f"data.jsonl:{n}", f'duplicate id: "{n}"', "") for n in range(1, 24)]
    rejects.append(Reject.at("data.jsonl:100", "NUL byte: here", ""))
    lines = reject_table(rejects).splitlines()
    assert lines[0] == '  data.jsonl:1   duplicate id: "1"'
    assert lines[19] == '  data.jsonl:20  duplicate id: "20"'
    assert lines[20:] == ["  … and 4 more", "By reason: duplicate id 23, NUL byte 1"]


def test_the_error_for_bad_rows_carries_them_and_says_what_to_do():
    rejects = [Reject.at("data.jsonl:4", 'missing field: "response"', "{}")]
    error = BadRowsError(rejects, 1200, "Do this.")
    assert error.rejects == rejects
    first, row, kinds, remedy = str(error).splitlines()
    assert first == "1 of 1,200 rows cannot be used as found."
    assert row == '  data.jsonl:4  missing field: "response"'
    assert (kinds, remedy) == ("By reason: missing field 1", "Do this.")
