"""Answers in a strict form: JSON, a comma-separated list, one of given options, a colour code."""

from __future__ import annotations

import random
import re
from dataclasses import MISSING, dataclass
from typing import Any

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import WHOLE_TEXT, Check, Problem, Task, listed, unstopped
from cut_dist.verifiable.text import Span, cut, excerpt, following, inner, words
from cut_dist.wording import counted

_LONGEST_ITEM = 6  # words


@dataclass(frozen=True)
class CommaList(Check):
    """The response is one line of exactly `count` items of at most six words, separated by commas."""

    count: int = ranged(MISSING, at_least=2, at_most=1_000)

    kind = "comma_list"
    forms = ("list",)
    aspects = WHOLE_TEXT - {"case"}
    wordings = (
        "Answer only with {count} short items on one line, separated by commas.",
        "Write a comma-separated list of exactly {count} short items and nothing else.",
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
            if (length := len(words(cut(response, (a, b))))) > _LONGEST_ITEM:
                saying = (
                    f"Item {number:,} of the list, {excerpt(response, (a, b))}, has {length:,} words; the items should "
                    f"be short, at most {_LONGEST_ITEM} words."
                )
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
    aspects = WHOLE_TEXT
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
                sayings = [f'{unstopped(saying)} The right answer is "{self.answer}".' for saying in sayings]
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
    aspects = WHOLE_TEXT
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
