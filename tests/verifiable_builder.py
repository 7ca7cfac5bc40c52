"""Responses that satisfy any combination of checks that the generator makes: the proof that none contradicts itself."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence

from cut_dist.verifiable import Check

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
    fixed = len(f"{opening} {ending}".replace("******", "").split())
    if "sections" in by_kind:
        fixed += 2 * count
    filler = _filler(by_kind)
    needed += itertools.islice(filler, max(0, count - len(needed), _fewest(by_kind) - fixed - len(needed)))
    size = -(-len(needed) // count)
    chunks = [needed[i * size : (i + 1) * size] for i in range(count)]
    while any(not chunk for chunk in chunks):  # 4 words over 3 chunks of 2 leave the last one empty
        largest = max(range(count), key=lambda i: len(chunks[i]))
        chunks[next(i for i in range(count) if not chunks[i])].append(chunks[largest].pop())
    return layout([" ".join(chunk) for chunk in chunks], opening, ending)


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


def _layout(by_kind: dict[str, Check]):
    """How many pieces the body has, and a function that joins them, the opening and the ending."""
    for kind in ("paragraph_count", "bullet_count", "numbered_list", "one_per_line", "sections", "sentence_count"):
        if kind not in by_kind:
            continue
        count = by_kind[kind].count
        if kind == "paragraph_count":
            return count, lambda body, opening, ending: f"{opening} " + "\n\n".join(body) + f" {ending}"
        if kind == "bullet_count":
            return count, lambda body, opening, ending: "\n".join([opening, *(f"- {x}" for x in body), ending])
        if kind == "numbered_list":
            return count, lambda body, opening, ending: "\n".join(
                [opening, *(f"{n}. {x}" for n, x in enumerate(body, start=1)), ending]
            )
        if kind == "one_per_line":
            return count, lambda body, opening, ending: "\n".join(body)
        if kind == "sections":
            word = by_kind[kind].word
            return count, lambda body, opening, ending: "\n".join(
                [*(f"{word} {n}\n{x}" for n, x in enumerate(body, start=1)), ending]
            )
        others = [by_kind[k].phrase for k in ("starts_with", "ends_with") if k in by_kind]
        count -= sum(phrase.endswith((".", "?")) for phrase in others)
        return count, _plain
    if "two_responses" in by_kind:
        return 2, lambda body, opening, ending: "\n******\n".join(body)
    return 1, _plain


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
    first = by_kind["every_word_starts_with"].letter if "every_word_starts_with" in by_kind else "kqz"
    return ("".join(letters) for letters in itertools.product(first, "kqz", "kqzxvj"))
