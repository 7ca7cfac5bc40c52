"""Verdicts, strict and loose, the four accuracies, instruction files, and the table of docs/verifiable.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from verifiable_cases import CASES
from verifiable_table import table

from cut_dist.data.triplets import DataError
from cut_dist.verifiable import (
    CheckError,
    accuracy,
    accuracy_of,
    judge,
    make_check,
    make_instructions,
    read_instructions,
    write_instructions,
)
from cut_dist.verifiable.judging import loose_variants

LOWERCASE, NO_COMMAS = {"kind": "all_lowercase"}, {"kind": "no_commas", "params": {}}


def test_a_satisfactory_response_has_no_judgment() -> None:
    verdict = judge("the sea", [LOWERCASE, NO_COMMAS])
    assert (verdict.satisfactory, verdict.loose, verdict.judgment, verdict.problems) == (True, True, None, ())
    assert verdict.kinds == ("all_lowercase", "no_commas")
    assert verdict.strict_by_check == verdict.loose_by_check == (True, True)


def test_a_judgment_says_all_that_is_wrong_in_the_order_of_the_checks() -> None:
    verdict = judge("The sea, the sky", [make_check("min_words", {"words": 9}), LOWERCASE, NO_COMMAS])
    assert not verdict.satisfactory and verdict.strict_by_check == (False, False, False)
    assert verdict.judgment == " ".join(problem.words for problem in verdict.problems)
    assert verdict.judgment == (
        "The response has 4 words, but at least 9 were asked for; 5 words are missing. "
        'All letters should be lowercase; the response breaks this rule in "The" (word 1), which has a capital letter. '
        'There should be no commas, but "sea," (word 2) has a comma.'
    )
    assert [problem.spans for problem in verdict.problems] == [(), ((0, 3),), ((4, 8),)]


@pytest.mark.parametrize("response", ["", "   ", "\n\t\n", "\u2003"])
def test_an_empty_response_is_unsatisfactory_whatever_was_asked(response: str) -> None:
    verdict = judge(response, [NO_COMMAS, LOWERCASE])
    assert not verdict.satisfactory and not verdict.loose
    assert verdict.strict_by_check == verdict.loose_by_check == (False, False)
    assert re.search("empty|no text", verdict.judgment) and [p.kind for p in verdict.problems] == ["empty"]


@pytest.mark.parametrize(
    "response",
    ["Sure! Here you are:\nthe sea", "the sea\nI hope this helps!", "Sure!\nthe sea\nGood luck!"],
)
def test_loose_forgives_a_first_and_a_last_line(response: str) -> None:
    verdict = judge(response, [LOWERCASE])
    assert not verdict.satisfactory and verdict.loose and verdict.judgment


def test_loose_forgives_asterisks_but_not_a_line_in_the_middle() -> None:
    assert judge("**19**", [{"kind": "json_list", "params": {"count": 1}}]).loose is False
    assert judge("***#00AAFF***", [{"kind": "hex_colour"}]).loose is True
    assert judge("the sea\nThe Sky\nthe end", [LOWERCASE]).loose is False


def test_loose_variants_are_the_eight_of_ifeval_but_the_response_and_blank_ones() -> None:
    assert loose_variants("a\n*b*\nc") == ["*b*\nc", "a\n*b*", "*b*", "a\nb\nc", "b\nc", "a\nb", "b"]
    assert loose_variants("a") == ["a"]


@given(st.sampled_from(CASES), st.sampled_from(CASES), st.data())
@settings(max_examples=300, deadline=None)
def test_strict_implies_loose_and_a_judgment_is_there_where_it_fails(first, second, data) -> None:
    response = data.draw(st.one_of(st.sampled_from([*first.good, *first.bad, *second.good]), st.text(max_size=40)))
    verdict = judge(response, [make_check(case.kind, case.params) for case in (first, second)])
    assert all(loose or not strict for strict, loose in zip(verdict.strict_by_check, verdict.loose_by_check))
    assert verdict.satisfactory == (verdict.judgment is None) == (not verdict.problems)
    assert verdict.loose or not verdict.satisfactory


@pytest.mark.parametrize(
    "checks, message",
    [
        ([], "'checks' is empty: without a check nothing can be judged"),
        ("min_words", "'checks' must be a list of objects with 'kind' and 'params', not 'min_words'"),
        ({"kind": "no_commas"}, "'checks' must be a list"),
        ([LOWERCASE, "no_commas"], "check 2: must be an object with 'kind' and 'params', not 'no_commas'"),
        ([{"kind": "no_commas", "parms": {}}], "check 1: has a field 'parms'; only 'kind' and 'params' are known"),
        ([{"kind": "no_comma"}], "check 1: there is no kind of check 'no_comma'; did you mean 'no_commas'?"),
    ],
)
def test_checks_that_are_none_are_named(checks, message: str) -> None:
    with pytest.raises(CheckError) as caught:
        judge("text", checks)
    assert message in str(caught.value)


def test_accuracy_counts_instructions_and_checks_strictly_and_loosely() -> None:
    pairs = [
        ("the sea", [LOWERCASE, NO_COMMAS]),  # both hold
        ("The, sea", [LOWERCASE, NO_COMMAS]),  # neither
        ("Sure:\nthe sea", [LOWERCASE]),  # only loosely
        ("a, b", [LOWERCASE, NO_COMMAS]),  # one of two
    ]
    found = accuracy(pairs)
    assert (found.instructions, found.checks) == (4, 7)
    assert (found.instruction_strict, found.instruction_loose) == (1 / 4, 2 / 4)
    assert (found.check_strict, found.check_loose) == (3 / 7, 4 / 7)
    assert list(found.by_kind) == ["all_lowercase", "no_commas"]
    lowercase, commas = found.by_kind.values()
    assert (lowercase.checks, lowercase.strict, lowercase.loose) == (4, 2 / 4, 3 / 4)
    assert (commas.checks, commas.strict, commas.loose) == (3, 1 / 3, 1 / 3)
    assert found == accuracy_of([judge(response, checks) for response, checks in pairs])


def test_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="accuracy of no responses at all"):
        accuracy([])


def test_a_written_file_reads_back_as_the_rows_that_were_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "instructions.jsonl"
    assert write_instructions(path, count=30, seed=1, split="heldout", start=5, max_checks=3) == 30
    assert read_instructions(path) == make_instructions(30, 1, "heldout", start=5, max_checks=3)
    assert not list(path.parent.glob("*.tmp"))


def test_a_users_file_may_leave_out_params_and_hold_other_metadata(tmp_path: Path) -> None:
    metadata = {"topic": "greetings", "checks": [{"kind": "no_commas"}]}
    row = {"id": "1", "instruction": "Say héllo.", "metadata": metadata}
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    assert read_instructions(path) == [row]


def _checked(*checks: dict) -> dict:
    return _row(metadata={"checks": list(checks)})


def _row(**changes) -> dict:
    return {"id": "1", "instruction": "Say hello.", "metadata": {"checks": [LOWERCASE]}} | changes


@pytest.mark.parametrize(
    "row, message",
    [
        (_checked({"kind": "min_words", "params": {"word": 3}}), "did you mean 'min_words.words'?"),
        (_checked(LOWERCASE, {"kind": "minwords"}), "check 2: there is no kind of check 'minwords'; did you mean"),
        (_checked({"kind": "min_words", "params": {}}), "min_words: the parameter 'words' is missing"),
        (_row(metadata={"check": []}), "'metadata' must be an object with 'checks'"),
        (_row(metadata=None), "'metadata' must be an object with 'checks'"),
        (_row(instruction=" "), "'instruction' must be text that is not blank"),
        (_row(id=7), "'id' must be text that is not blank"),
        (_row(instructions="x"), "unknown field 'instructions'; did you mean 'instruction'?"),
        (_row(id="0"), "the id '0' is taken by"),
        ([1], "not an object: a row is a JSON object"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, message: str) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(_row(id="0")) + "\n" + json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_instructions(path)
    assert "1 of 2 rows can't be used" in str(caught.value)
    assert f"{path}:2: " in str(caught.value) and message in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.jsonl: no such file of instructions"):
        read_instructions(tmp_path / "nowhere.jsonl")


def test_the_table_of_the_docs_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "verifiable.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- table -->\n")
    assert rest.partition("<!-- end of table -->")[0] == table(), "run python tests/verifiable_table.py and paste it"
