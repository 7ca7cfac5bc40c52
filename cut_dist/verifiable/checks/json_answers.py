"""Answers that are JSON and nothing else."""

from __future__ import annotations

import json
import random
from dataclasses import MISSING, dataclass
from typing import Any

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import WHOLE_TEXT, Check, Problem, Task, listed
from cut_dist.verifiable.text import excerpt, following, inner, line_number
from cut_dist.wording import counted

_TYPES = {dict: "an object", list: "an array", str: "a string", bool: "true or false", float: "a number"}
_SYNTAX = {  # json's reasons in plain words, by how they begin
    "Expecting ',' delimiter": "a comma or a closing bracket should come",
    "Expecting property name": "a key in double quotes should come",
    "Expecting ':' delimiter": "a colon should come",
    "Expecting value": "a value should come",
    "Unterminated string": "a string begins that is never closed",
    "Invalid control character": "a string holds a line break or another control character",
    "Invalid \\": "a backslash stands where it means nothing",
}


def _refuse(literal: str) -> None:
    raise ValueError(literal)


def _json(check: Check, response: str) -> tuple[Any, list[Problem]]:
    """The value that the response is in JSON (its numbers as floats), or the problem that it is none."""
    start, end = inner(response)
    try:
        return json.loads(response[start:end], parse_constant=_refuse, parse_int=float), []
    except json.JSONDecodeError as error:
        return None, _syntax(check, response, start + error.pos, error.msg)
    except ValueError as error:
        return None, check.found(response, [f"The response has the value {error}, which JSON does not know."])
    except RecursionError:
        return None, check.found(response, ["The response is nested too deep to be read as JSON."])


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
    if reason.startswith("Illegal trailing comma"):  # Python 3.13 on; before, what follows the comma was to blame
        at = following(response, at + 1)[0]
        reason = "Expecting property name" if reason.endswith("object") else "Expecting value"
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
    aspects = WHOLE_TEXT
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
    aspects = WHOLE_TEXT
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


