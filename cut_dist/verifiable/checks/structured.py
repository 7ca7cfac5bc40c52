"""Answers in a strict form: JSON, a comma-separated list, one of given options, a colour code."""

from __future__ import annotations

import json
import random
import re
from dataclasses import MISSING, dataclass
from typing import Any

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import Check, Problem, Task, listed
from cut_dist.verifiable.text import Span, cut, excerpt, following, inner, line_number
from cut_dist.wording import counted

_ALL = frozenset(
    [
        "opening", "ending", "layout", "sentences", "case", "commas", "markup", "length", "vocabulary", "letters", "digits",
    ]
)  # fmt: skip
_TYPES = {dict: "an object", list: "an array", str: "a string", bool: "true or false", float: "a number"}
_SYNTAX = {  # json's reasons in plain words, by how they begin
    "Expecting ',' delimiter": "a comma or a closing bracket should come",
    "Expecting property name": "a key in double quotes should come",
    "Expecting ':' delimiter": "a colon should come",
    "Expecting value": "a value should come",
    "Unterminated string": "a string begins that is never closed",
    "Invalid control character": "a string holds a line break or another control character",
    "Invalid \\": "a backslash stands where it means nothing",
    "Illegal trailing comma": "there is a comma with nothing after it",
}


def _refuse(literal: str) -> None:
    raise ValueError(f"{literal} is not JSON")


def _json(check: Check, response: str) -> tuple[Any, list[Problem]]:
    """The value that the response is in JSON (its numbers as floats), or the problem that it is none."""
    start, end = inner(response)
    try:
        return json.loads(response[start:end], parse_constant=_refuse, parse_int=float), []
    except json.JSONDecodeError as error:
        return None, _syntax(check, response, start + error.pos, error.msg)
    except (ValueError, RecursionError):
        return None, check.found(response, ["The response holds NaN or Infinity, or is nested too deep for JSON."])


def _syntax(check: Check, response: str, at: int, reason: str) -> list[Problem]:
    start, end = inner(response)
    if response[start : start + 1] not in ("{", "["):
        quote = excerpt(response, (start, end))
        sayings = [
            f"The response should be JSON and nothing else, but it begins with {quote}.",
            f"It begins with {quote}, which is not JSON; the whole response should be.",
        ]
        return check.found(response, sayings, [(start, end)])
    if at >= end:
        tail = excerpt(response, (max(start, response.rfind("\n", start, end) + 1, end - 30), end))
        saying = f"The JSON is not finished: the response ends with {tail}, and more should come."
        return check.found(response, [saying])
    place = (at, end)
    if reason == "Extra data":
        sayings = [f"After the JSON the response goes on with {excerpt(response, place)}; it should be JSON only."]
    else:
        what = next((words for begin, words in _SYNTAX.items() if reason.startswith(begin)), reason)
        where = f"in line {line_number(response, at):,}, at {excerpt(response, place)}"
        sayings = [f"The response is not valid JSON: {where}, {what}."]
    return check.found(response, sayings, [place])


def _type(value: Any) -> str:
    return next((name for kind, name in _TYPES.items() if isinstance(value, kind)), "null")


@dataclass(frozen=True)
class JsonObject(Check):
    """The response is one JSON object and nothing else; it has all `keys`."""

    keys: list[str] = MISSING

    kind = "json_object"
    forms = ("record",)
    aspects = _ALL
    wordings = (
        "Answer with a JSON object that has the keys {keys}, and nothing else.",
        "Reply only with JSON: one object with the keys {keys}.",
    )
    new_wordings = ("The whole answer should be one JSON object with the keys {keys}.",)

    def __post_init__(self) -> None:
        require(len(self.keys) > 0, f"{self.kind}.keys", self.keys, "must name at least one key")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> JsonObject:
        return cls(rng.sample(task.keys, rng.choice((2, 2, 3))))

    def values(self) -> dict[str, Any]:
        return {"keys": listed(self.keys) if self.keys else "that you like"}

    def problems(self, response: str) -> list[Problem]:
        value, problems = _json(self, response)
        if problems:
            return problems
        if not isinstance(value, dict):
            span = inner(response)
            saying = f"A JSON object was asked for, but the response, {excerpt(response, span)}, is {_type(value)}."
            return self.found(response, [saying], [span])
        missing = [key for key in self.keys if key not in value]
        if not missing:
            return []
        noun, verb = ("key", "is") if len(missing) == 1 else ("keys", "are")
        shown = [key for key in list(value)[:4] if _plain(key)]
        have = f"it has {listed(shown)}" if shown else "it has others" if value else "it is empty"
        sayings = (
            f"The {noun} {listed(missing)} {verb} missing from the JSON object; {have}.",
            f"The JSON object should have the {noun} {listed(missing)}, but {have}.",
        )
        return self.found(response, sayings)


def _plain(key: str) -> bool:
    return key.isprintable() and 0 < len(key) <= 30


@dataclass(frozen=True)
class JsonList(Check):
    """The response is one JSON array of exactly `count` strings and nothing else."""

    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "json_list"
    forms = ("list",)
    aspects = _ALL
    wordings = (
        "Answer only with a JSON array of {count} strings.",
        'Reply with a JSON list of exactly {count} strings, such as ["a", "b"], and nothing else.',
    )
    new_wordings = ("The whole answer should be a JSON array holding {count} strings.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> JsonList:
        return cls(rng.randint(2, 6))

    def problems(self, response: str) -> list[Problem]:
        value, problems = _json(self, response)
        if problems:
            return problems
        span = inner(response)
        quote = excerpt(response, span)
        if not isinstance(value, list):
            return self.found(response, [f"A JSON array was asked for, but {quote} is {_type(value)}."], [span])
        other = next((number for number, item in enumerate(value, start=1) if not isinstance(item, str)), None)
        if other:
            saying = f"Item {other:,} of the JSON array {quote} is {_type(value[other - 1])}, not a string."
            return self.found(response, [saying], [span])
        if len(value) != self.count:
            sayings = (
                f"The JSON array {quote} has {counted(len(value), 'item')}; exactly {self.count:,} should be in it.",
                f"Exactly {counted(self.count, 'string')} should be in the JSON array, but {quote} has {len(value):,}.",
            )
            return self.found(response, sayings, [span])
        return []


@dataclass(frozen=True)
class CommaList(Check):
    """The response is one line of exactly `count` items of at most four words, separated by commas."""

    count: int = ranged(MISSING, at_least=2, at_most=1_000)

    kind = "comma_list"
    forms = ("list",)
    aspects = _ALL - {"case"}
    wordings = (
        "Answer only with {count} items on one line, separated by commas.",
        "Write a comma-separated list of exactly {count} items and nothing else.",
    )
    new_wordings = ("Give just {count} short items with commas between them, on a single line.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> CommaList:
        return cls(rng.randint(2, 6))

    def problems(self, response: str) -> list[Problem]:
        start, end = inner(response)
        if "\n" in response[start:end]:
            span = following(response, response.index("\n", start))
            saying = f"The list should stand on one line, but the response goes on with {excerpt(response, span)}."
            return self.found(response, [saying], [span])
        items = [(m.start(), m.end()) for m in re.finditer(r"[^,]+", response[start:end])]
        items = [(start + a, start + b) for a, b in items if response[start + a : start + b].strip()]
        for number, (a, b) in enumerate(items, start=1):
            if len(cut(response, (a, b)).split()) > 4:
                saying = f"Item {number:,} of the list, {excerpt(response, (a, b))}, is more than a short item."
                return self.found(response, [saying], [(a, b)])
        if len(items) == self.count:
            return []
        quote = excerpt(response, (start, end))
        sayings = (
            f"Exactly {self.count:,} items separated by commas were asked for; {quote} has {len(items):,}.",
            f"The commas of {quote} make {counted(len(items), 'item')} instead of {self.count:,}.",
        )
        return self.found(response, sayings, [(start, end)])


@dataclass(frozen=True)
class OneOf(Check):
    """The response is one of `options` and nothing else; with `answer`, it is that one. Capitals don't matter."""

    options: list[str] = MISSING
    answer: str | None = None

    kind = "one_of"
    forms = ("choice",)
    aspects = _ALL
    wordings = ("Answer only with {options}.", "Reply with {options} and nothing else.", "Say just {options}.")
    new_wordings = ("Your whole answer should be {options}.",)

    def __post_init__(self) -> None:
        require(len(self.options) > 1, f"{self.kind}.options", self.options, "must name at least two answers")
        known = self.answer is None or self.answer in self.options
        require(known, f"{self.kind}.answer", self.answer, f"must be one of the options, {', '.join(self.options)}")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> OneOf:
        return cls(list(task.options), task.answer or None)

    def values(self) -> dict[str, Any]:
        return {"options": listed(self.options, "or")}

    def problems(self, response: str) -> list[Problem]:
        span = inner(response)
        given, quote = _bare(cut(response, span)), excerpt(response, span)
        option = next((option for option in self.options if _bare(option) == given), None)
        if option is None:
            sayings = [
                f"The whole response should be {listed(self.options, 'or')}, but it is {quote}.",
                f"Only {listed(self.options, 'or')} may be answered, and the response is {quote}.",
            ]
            if self.answer:
                sayings = [f'{saying} The right answer is "{self.answer}".' for saying in sayings]
            return self.found(response, sayings, [span])
        if self.answer and option != self.answer:
            sayings = (
                f'The answer {quote} is wrong; it should be "{self.answer}".',
                f'The right answer is "{self.answer}", not {quote}.',
            )
            return self.found(response, sayings, [span])
        return []


def _bare(answer: str) -> str:
    return answer.strip(" \t\"'“”.!").casefold()


@dataclass(frozen=True)
class HexColour(Check):
    """The response is one colour code of the form #RRGGBB and nothing else."""

    kind = "hex_colour"
    forms = ("colour",)
    aspects = _ALL
    wordings = (
        "Answer only with a hex code such as #1A2B3C.",
        "Give the colour as # with six hex digits and write nothing else.",
    )
    new_wordings = ("The whole answer should be one colour code in the form #RRGGBB.",)

    def problems(self, response: str) -> list[Problem]:
        span: Span = inner(response)
        text, quote = cut(response, span), excerpt(response, span)
        if re.fullmatch(r"#[0-9A-Fa-f]{6}", text):
            return []
        code = re.search(r"(?<![\w#])#[0-9A-Fa-f]{6}(?!\w)", text)
        if code:
            sayings = [f"The code {code[0]} has the right form, but it should stand alone; the response is {quote}."]
        else:
            sayings = [
                f"The response should be a code of # and six hex digits, but it is {quote}.",
                f"{quote} is not a colour code of the form #RRGGBB.",
            ]
        return self.found(response, sayings, [span])
