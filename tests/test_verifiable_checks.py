"""Every kind of check: what it lets pass, what it says, and that no text whatever can upset it."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verifiable_cases import CASES, Case

import cut_dist.verifiable
from cut_dist.verifiable import KINDS, CheckError, make_check
from cut_dist.verifiable.base import FORMS, pick
from cut_dist.verifiable.text import excerpt, paragraphs, placed, sentences, words

CHECKS = [make_check(case.kind, case.params) for case in CASES]
PIECES = st.sampled_from(
    ["the sea", "Sea.", "SALT", "It is blue. ", "Dr. ", "e.g. ", "\n", "\n\n", "\r\n", "- ", "* ", "1. ", "2) ", "# "]
    + ["Part 1", "Part 2", "P.S. ", "******", "*blue*", "**", "[name]", "<<a>>", '"', "“", "{", "}", '"name": 1', "["]
    + ["]", ", ", "!", "?", "...", "…", "—", "19", "#00AAFF", "\t", "\x00", "\u2028", "\ud800", "ǅ", "ß", "नि", "海"]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(st.characters()),  # lone surrogates too
    st.lists(PIECES, max_size=30).map("".join),
    st.lists(st.one_of(PIECES, st.text(st.characters(), max_size=5)), max_size=20).map(" ".join),
)


def checked_texts():
    return st.tuples(st.sampled_from(CHECKS), TEXTS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{json.dumps(case.params)}")
def test_each_kind_passes_what_it_should_and_says_what_is_wrong(case: Case) -> None:
    check = make_check(case.kind, case.params)
    for response in case.good:
        assert check.problems(response) == [], response
    for response, (judgment, spans) in case.bad.items():
        (problem,) = check.problems(response)
        assert (problem.kind, problem.words) == (case.kind, judgment), response
        assert [list(span) for span in problem.spans] == spans, response


def test_every_kind_has_a_case_and_every_case_a_bad_response() -> None:
    assert {case.kind for case in CASES} == set(KINDS)
    assert all(case.good and case.bad for case in CASES)
    assert len(KINDS) >= 24


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_is_complete(kind) -> None:
    assert kind.__doc__ and kind.aspects and set(kind.forms) <= set(FORMS) and kind.forms
    assert len(kind.wordings) >= 2 and len(kind.new_wordings) >= 1
    assert not set(kind.wordings) & set(kind.new_wordings)
    assert "problems" in dir(kind) and inspect.isfunction(kind.problems)


@given(checked_texts())
@settings(max_examples=800, deadline=None)
def test_no_text_upsets_a_check_and_its_quotations_are_the_responses_own(checked) -> None:
    check, response = checked
    for problem in check.problems(response):
        assert problem.words == problem.words.strip() and "\n" not in problem.words
        assert problem.words.endswith((".", '."', '!"', '?"')), problem.words
        problem.words.encode("utf-8")  # no lone surrogate gets into training data
        assert list(problem.spans) == sorted(problem.spans)
        for start, end in problem.spans:
            assert 0 <= start < end <= len(response)
        if problem.spans:
            assert excerpt(response, problem.spans[0]) in problem.words


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_an_excerpt_is_the_texts_own_beginning(text: str) -> None:
    quoted = excerpt(text, (0, len(text)))
    inside = quoted[1:-1].removesuffix("...").rstrip()
    clean = "".join(c if c.isprintable() or c == "\n" else " " if c == "\t" else "\ufffd" for c in text.strip())
    assert len(inside) <= 60 and (clean.startswith(inside) or text.strip().startswith(inside))


@pytest.mark.parametrize(
    "text, quoted",
    [
        ("a" * 60, '"' + "a" * 60 + '"'),
        ("a" * 61, '"' + "a" * 60 + '..."'),
        ("a " * 40, '"' + "a " * 29 + 'a..."'),
        ("b " + "a" * 60, '"b..."'),
        ("  one\ntwo", '"one..."'),
        ("One.\ntwo", '"One. ..."'),
        ("a\tb\x00\ud800", '"a b\ufffd\ufffd"'),
        ("\n ", '""'),
    ],
)
def test_an_excerpt_is_short_clean_and_of_one_line(text: str, quoted: str) -> None:
    assert excerpt(text, (0, len(text))) == quoted


HUGE = 20_000
NASTY = ["a", " ", "\n", ".", "*", "#", "[", "]", '"', "{", '{"a":', "[1,", "<<a", "<<", "1. ", "- ", "-\n", "a,"]
NASTY += ["******\n", "Part 1\n", "[a", "*a", "`", "12 ", "a—", " \n", "A.", "P.S.", "\n\n", "(", '."', "**a", "a*"]


@pytest.mark.parametrize("piece", NASTY)
def test_a_huge_response_of_one_piece_is_no_trouble(piece: str) -> None:
    """Nothing recurses, and no pattern goes back and forth over the text until the timeout."""
    response = piece * (HUGE // len(piece)) + "x"
    for check in CHECKS:
        check.problems(response)


@pytest.mark.parametrize(
    "text, count",
    [
        ("", 0),
        ("The sea is blue. It is deep.", 2),
        ("Dr. Lee met J. Smith at 3.30 p.m. yesterday.", 1),
        ("Vitamins, e.g. vitamin C, help.", 1),
        ("It was he and I. Then she came.", 2),
        ('Really?! Yes... maybe. "No!" she said. "Why?" He left.', 5),
        ("- apples\n- pears\n1. plums", 3),
        ("# Title\n**Bold title**\n<<Title>>\nOne line", 1),
        ("2.\n---\n***", 0),
        ("1. The sea. 2. The sky. 3. Sand", 3),
        ("See example.com or v1.2 for it", 1),
    ],
)  # fmt: skip
def test_sentences_are_counted_as_a_reader_would(text: str, count: int) -> None:
    assert len(sentences(text)) == count


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("Well-known, isn't it?", ["Well-known", "isn't", "it"]),
        ("1. One\n2) Two 3. three", ["One", "Two", "3", "three"]),
        ("a—b – c & d / *e* [f]", ["a", "b", "c", "d", "e", "f"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("... -- ***", []),
    ],
)
def test_words_are_what_a_reader_would_count(text: str, wanted: list[str]) -> None:
    assert [text[start:end] for start, end in words(text)] == wanted


def test_paragraphs_need_a_blank_line_between_them() -> None:
    text = "one\ntwo\n\n \t\nthree\r\n\r\nfour\n"
    assert [text[start:end] for start, end in paragraphs(text)] == ["one\ntwo", "three", "four"]


def test_a_place_is_a_line_of_many_or_a_word_of_one() -> None:
    assert placed("one two three", (4, 7)) == '"two" (word 2)'
    assert placed("one\n\nthree", (5, 10)) == '"three" (line 3)'
    assert placed("one - three", (4, 5)) == '"-"'


def test_every_saying_of_a_kind_is_reached() -> None:
    """The words vary from response to response, and not only in what they quote."""
    openings = {make_check("min_words", {"words": 50}).problems(f"word {i}")[0].words.split()[0] for i in range(40)}
    assert openings == {"The", "It", "After"}


def test_the_choice_of_words_is_the_same_everywhere() -> None:
    assert [pick("abcdefgh", "kind", text) for text in ("", "a", "b", "\ud800")] == ["e", "b", "a", "f"]


def test_forbidden_words_give_the_place_of_each_one() -> None:
    response = "Blue sea.\nThe sky is blue, not bluish."
    (problem,) = make_check("forbidden_words", {"words": ["blue"]}).problems(response)
    assert problem.spans == ((0, 4), (21, 25))


def test_what_is_over_the_limit_is_one_span() -> None:
    (problem,) = make_check("max_words", {"words": 2}).problems("One two three. Four!")
    assert problem.spans == ((8, 19),)


@pytest.mark.parametrize(
    "kind, params, message",
    [
        ("min_word", {}, "there is no kind of check 'min_word'; did you mean 'min_words'?"),
        (3, {}, "there is no kind of check 3. Kinds: all_lowercase, "),
        ("min_words", {}, "min_words: the parameter 'words' is missing"),
        ("min_words", {"wrds": 3}, "There is no key 'min_words.wrds'; did you mean 'min_words.words'?"),
        ("min_words", {"words": "3"}, "min_words.words='3': must be a whole number."),
        ("min_words", {"words": True}, "min_words.words=true: must be a whole number."),
        ("min_words", {"words": 0}, "min_words.words=0: must be at least 1 and at most 10000."),
        ("min_words", [3], "min_words: 'params' must be an object of names and values, not [3]"),
        ("no_commas", {"count": 1}, "no_commas has no parameters, but 'count' is given"),
        ("word_range", {"low": 5, "high": 3}, "word_range.low=5: must not be more than high=3."),
        ("sentence_count", {"relation": "atleast", "count": 3}, "did you mean 'at least'?"),
        ("include_words", {"words": []}, "include_words.words=[]: must name at least one word."),
        ("include_words", {"words": [" a"]}, "must be a word without white space around it."),
        ("letter_frequency", {"letter": "AB", "relation": "exactly", "count": 1}, "must be one lowercase letter."),
        ("one_of", {"options": ["a"]}, "must name at least two answers."),
        ("one_of", {"options": ["a", "b"], "answer": "c"}, "must be one of the options, a, b."),
        ("starts_with", {"phrase": ""}, "must be a phrase without white space around it."),
        ("json_object", {"keys": []}, "must name at least one key."),
        ("arithmetic", {"expression": "__import__('os')"}, 'must be two whole numbers with +, - or *: "12 + 7".'),
        ("date_form", {"date": "2021-02-30"}, "must be a date in the form YYYY-MM-DD."),
        ("sorted_list", {"items": ["b", "a,c"]}, "must be items without a comma inside"),
        ("sorted_list", {"items": ["b", "a"], "order": "ascending"}, "must be whole numbers to be sorted ascending."),
        ("number_sequence", {"first": 1, "last": 6, "step": 2}, "can't be reached from 1 in steps of 2."),
        ("number_sequence", {"first": 1, "last": 6, "step": 0}, "must lead from first to last"),
        ("palindrome", {"letters": 1}, "must be at least 2"),
        ("postscript", {"marker": " "}, "must not be blank."),
        ("reversed_word", {"word": "two words"}, "must be one word of letters."),
    ],
)
def test_a_check_that_cannot_be_made_says_why(kind: object, params: object, message: str) -> None:
    with pytest.raises(CheckError) as caught:
        make_check(kind, params)
    assert message in str(caught.value)


def test_the_package_imports_neither_torch_nor_the_network() -> None:
    """Judging goes on in processes that have no model."""
    heavy = {"torch", "transformers", "deepspeed", "numpy", "requests", "urllib", "socket", "http"}
    for file in Path(cut_dist.verifiable.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not {name.partition(".")[0] for name in names} & heavy, file
