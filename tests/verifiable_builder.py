"""Responses that satisfy any combination of checks that the generator makes: the proof that none contradicts itself."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence

from cut_dist.verifiable import Check
from cut_dist.verifiable.text import words

_ANSWERS = {
    "one_of": lambda check: check.answer,
    "hex_colour": lambda check: "#1A2B3C",
    "palindrome": lambda check: "a" * check.letters,
    "json_object": lambda check: json.dumps(dict.fromkeys(check.keys, 1)),
    "json_list": lambda check: json.dumps(["k"] * check.count),
    "comma_list": lambda check: ", ".join(["k"] * check.count),
}


def satisfying(checks: Sequence[Check]) -> str:
    """A response (of made-up words) for which every check holds, if the checks allow one."""
    by_kind = {check.kind: check for check in checks}
    response = next((_ANSWERS[kind](by_kind[kind]) for kind in by_kind if kind in _ANSWERS), None)
    if response is None and hasattr(checks[0], "answer"):
        response = checks[0].answer()
    if response is None and hasattr(checks[0], "expected"):
        response = ", ".join(checks[0].expected())
    return _cased(by_kind, response if response is not None else _composed(by_kind))


def _cased(by_kind: dict[str, Check], response: str) -> str:
    if "all_uppercase" in by_kind:
        return response.upper()
    return response.title() if "title_case" in by_kind else response


def _composed(by_kind: dict[str, Check]) -> str:
    opening, ending = _frame(by_kind)
    count, layout = _layout(by_kind)
    needed = _needed(by_kind)
    fixed = len(words(f"{opening} {ending}"))
    if "sections" in by_kind:
        fixed += 2 * count
    filler = itertools.islice(_filler(by_kind), max(count, _fewest(by_kind) - fixed - len(needed)))
    tokens = [*filler, *needed]
    return layout([" ".join(tokens[number::count]) for number in range(count)], opening, ending)


def _frame(by_kind: dict[str, Check]) -> tuple[str, str]:
    opening = ending = ""
    if "starts_with" in by_kind:
        opening = by_kind["starts_with"].phrase
    if "title_in_angles" in by_kind:
        opening = "<<kkk>>\n"
    if "repeat_request" in by_kind:
        opening = by_kind["repeat_request"].request
    if "ends_with" in by_kind:
        ending = by_kind["ends_with"].phrase
    if "postscript" in by_kind:
        ending = f"\n{by_kind['postscript'].marker} kkk"
    if "in_double_quotes" in by_kind:
        opening, ending = '"', '"'
    return opening, ending


Layout = Callable[[list[str], str, str], str]


def _layout(by_kind: dict[str, Check]) -> tuple[int, Layout]:
    """How many pieces the body has, and a function that joins them, the opening and the ending."""
    if "sections" in by_kind:
        return by_kind["sections"].count, functools.partial(_sections, by_kind["sections"].word)
    for kind, layout in _LAYOUTS.items():
        if kind in by_kind:
            return by_kind[kind].count, layout
    if "two_responses" in by_kind:
        return 2, lambda body, opening, ending: "\n******\n".join(body)
    if "sentence_count" in by_kind:
        phrases = [by_kind[kind].phrase for kind in ("starts_with", "ends_with") if kind in by_kind]
        return by_kind["sentence_count"].count - sum(phrase.endswith((".", "?")) for phrase in phrases), _plain
    return 1, _plain


def _sections(word: str, body: list[str], opening: str, ending: str) -> str:
    return "\n".join([*(f"{word} {n}\n{piece}" for n, piece in enumerate(body, start=1)), ending])


_LAYOUTS: dict[str, Layout] = {
    "paragraph_count": lambda body, opening, ending: f"{opening} " + "\n\n".join(body) + f" {ending}",
    "bullet_count": lambda body, opening, ending: "\n".join([opening, *(f"- {piece}" for piece in body), ending]),
    "numbered_list": lambda body, opening, ending: "\n".join(
        [opening, *(f"{n}. {piece}" for n, piece in enumerate(body, start=1)), ending]
    ),
    "one_per_line": lambda body, opening, ending: "\n".join(body),
}


def _plain(body: list[str], opening: str, ending: str) -> str:
    if ending == '"':
        return '"' + ". ".join(body) + '."'
    return f"{opening} " + " ".join(f"{piece}." for piece in body) + f" {ending}"


def _needed(by_kind: dict[str, Check]) -> list[str]:
    needed: list[str] = []
    if "include_words" in by_kind:
        needed += by_kind["include_words"].words
    if "word_frequency" in by_kind:
        needed += [by_kind["word_frequency"].word] * by_kind["word_frequency"].count
    if "letter_frequency" in by_kind:
        needed.append(by_kind["letter_frequency"].letter * by_kind["letter_frequency"].count)
    if "highlights" in by_kind:
        needed += ["*kz*"] * by_kind["highlights"].count
    if "placeholders" in by_kind:
        needed += ["[kz]"] * by_kind["placeholders"].count
    if "capital_words" in by_kind:
        needed += ["KZ"] * by_kind["capital_words"].count
    return needed


def _fewest(by_kind: dict[str, Check]) -> int:
    """The least number of words that the checks allow."""
    for kind, name in (("min_words", "words"), ("word_range", "low"), ("exact_words", "words")):
        if kind in by_kind:
            return getattr(by_kind[kind], name)
    return 1


def _filler(by_kind: dict[str, Check]) -> Iterator[str]:
    """Different small words of at most three letters that no generated check forbids."""
    first = by_kind["every_word_starts_with"].letter if "every_word_starts_with" in by_kind else "kqzx"
    return ("".join(reversed(letters)) for letters in itertools.product("kqzxvj", "kqzxvj", first))
