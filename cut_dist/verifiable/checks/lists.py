"""Lists of a given number of items: bullets, numbers, lines."""

from __future__ import annotations

import random
import re
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar

from cut_dist.config_check import ranged
from cut_dist.verifiable.base import Check, Problem, Task
from cut_dist.verifiable.text import Span, excerpt, line_number, lines
from cut_dist.wording import counted

_LAYOUT = frozenset({"layout", "sentences"})
_NUMBERED = re.compile(r"(\d{1,4})[.)][ \t]+\S")
BULLET = re.compile(r"[-*+•][ \t]+\S")


class _ItemCount(Check):
    """A list of exactly `count` items, one a line."""

    forms = ("list", "points")
    aspects = _LAYOUT
    noun: ClassVar[str]
    looks: ClassVar[str]

    def _items(self, response: str) -> list[Span]:
        raise NotImplementedError

    def problems(self, response: str) -> list[Problem]:
        found, count = self._items(response), self.count
        if len(found) == count:
            return []
        have = counted(len(found), self.noun) if found else f"no {self.noun}"
        if len(found) > count:
            surplus = found[count:]
            sayings = (
                f"The response has {have} instead of {count:,}; {excerpt(response, surplus[0])} in line "
                f"{line_number(response, surplus[0][0]):,} is one too many.",
                f"There should be exactly {counted(count, self.noun)}; the response has {len(found):,}, and the first "
                f"one too many is {excerpt(response, surplus[0])}.",
            )
            return self.found(response, sayings, surplus)
        if not found:
            start = excerpt(response, (lines(response) or [(0, 0)])[0])
            sayings = (
                f"The response, which begins {start}, has {have}; {count:,} {self.looks} were asked for.",
                f"Exactly {counted(count, self.noun)} ({self.looks}) should be given, but the response has none.",
            )
        else:
            sayings = (
                f"The response has only {have} where {count:,} were asked for; the last one is "
                f"{excerpt(response, found[-1])}.",
                f"After {excerpt(response, found[-1])} the list stops with {have}; exactly {count:,} were wanted.",
            )
        return self.found(response, sayings)

    def values(self) -> dict[str, Any]:
        return {"items": counted(self.count, self.noun), "count": self.count}

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Check:
        return cls(rng.randint(2, 6))


@dataclass(frozen=True)
class BulletCount(_ItemCount):
    """Exactly `count` lines that begin with -, *, + or • and a space."""

    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "bullet_count"
    noun, looks = "bullet point", 'lines that begin with "- "'
    wordings = ("Use exactly {items}.", "Give your answer as {items}.", "Answer with {items}.")
    new_wordings = ("Make it a list of {items}.",)

    def _items(self, response: str) -> list[Span]:
        return [span for span in lines(response) if BULLET.match(response, *span)]


@dataclass(frozen=True)
class NumberedList(_ItemCount):
    """Exactly `count` lines that begin with a number and a point or bracket, numbered 1, 2, 3, ..."""

    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "numbered_list"
    aspects = _LAYOUT | {"digits"}
    noun, looks = "numbered item", 'lines that begin "1.", "2." and so on'
    wordings = ("Give a numbered list of {count} items.", "Number your points from 1 to {count}, one on each line.")
    new_wordings = ("Answer with a list of {count} items, numbered from 1.",)

    def _items(self, response: str) -> list[Span]:
        return [span for span in lines(response) if _NUMBERED.match(response, *span)]

    def problems(self, response: str) -> list[Problem]:
        if problems := super().problems(response):
            return problems
        for wanted, span in enumerate(self._items(response), start=1):
            number = _NUMBERED.match(response, *span)[1]
            if int(number) != wanted:
                saying = f"The item {excerpt(response, span)} is numbered {number} where {wanted:,} should come."
                return self.found(response, [saying], [span])
        return []


@dataclass(frozen=True)
class OnePerLine(_ItemCount):
    """Exactly `count` lines that are not blank, none of them with a bullet or number."""

    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "one_per_line"
    forms = ("list",)
    aspects = _LAYOUT | {"opening", "ending"}
    noun, looks = "line", "lines of one item each"
    wordings = (
        "Write exactly {count} items, one on each line, without bullets or numbers.",
        "Put {count} items on {count} lines and add nothing else: no bullets, no numbers.",
    )
    new_wordings = ("Answer with {count} lines, each holding one item, unnumbered and without bullets.",)

    def _items(self, response: str) -> list[Span]:
        return lines(response)

    def problems(self, response: str) -> list[Problem]:
        marked = [s for s in lines(response) if BULLET.match(response, *s) or _NUMBERED.match(response, *s)]
        if not marked:
            return super().problems(response)
        line, first = line_number(response, marked[0][0]), excerpt(response, marked[0])
        sayings = (
            f"The items should stand on their lines without bullets or numbers, but line {line:,} is {first}.",
            f"Line {line:,}, {first}, begins with a bullet or number, which the instruction rules out.",
        )
        return self.found(response, sayings, marked)


