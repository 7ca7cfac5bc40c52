"""Lists with one right order that a program knows, and palindromes."""

from __future__ import annotations

import random
import re
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import WHOLE_TEXT, Check, Problem, Task
from cut_dist.verifiable.checks.answer_words import WORDS
from cut_dist.verifiable.checks.answers import NUMBER, SURROUND
from cut_dist.verifiable.text import Span, cut, excerpt, following, inner
from cut_dist.wording import counted

_ORDERS = {"ascending": "from small to large", "descending": "from large to small"}


class _Sequence(Check):
    """The response is a known list on one line, separated by commas, and nothing else."""

    forms = ("answer",)
    aspects = WHOLE_TEXT

    def expected(self) -> list[str]:
        """The items in the right order."""
        raise NotImplementedError

    def problems(self, response: str) -> list[Problem]:
        start, end = inner(response)
        newline = response.find("\n", start, end)
        if newline >= 0:
            span = following(response, newline)
            saying = f"The list should stand on one line, but the response goes on with {excerpt(response, span)}."
            return self.found(response, [saying], [span])
        wanted = self.expected()
        items = [m.span() for m in re.finditer(r"[^,]+", response[:end])]
        items = [_trimmed(response, item) for item in items if cut(response, item).strip(SURROUND)]
        for number, (span, right) in enumerate(zip(items, wanted), start=1):
            if cut(response, span).casefold() != right.casefold():
                quote = excerpt(response, span)
                sayings = (
                    f'Item {number:,} of the list should be "{right}", but it is {quote}.',
                    f'Where "{right}" should come, as item {number:,}, the response has {quote}.',
                )
                return self.found(response, sayings, [span])
        if len(items) > len(wanted):
            surplus = items[len(wanted) :]
            saying = f'The list should end with "{wanted[-1]}", but it goes on with {excerpt(response, surplus[0])}.'
            return self.found(response, [saying], surplus)
        if len(items) < len(wanted):
            missing = f'"{wanted[len(items)]}" should come next'
            saying = f"The list stops after {counted(len(items), 'item')} of {len(wanted):,}; {missing}."
            return self.found(response, [saying])
        return []


def _trimmed(response: str, item: Span) -> Span:
    text = cut(response, item)
    start = item[0] + len(text) - len(text.lstrip(SURROUND))
    return start, start + len(text.strip(SURROUND))


@dataclass(frozen=True)
class SortedList(_Sequence):
    """`items` in alphabetical order, or as numbers ascending or descending; separated by commas, alone."""

    items: list[str] = MISSING
    order: Literal["alphabetical", "ascending", "descending"] = "alphabetical"

    kind = "sorted_list"
    wordings = (
        "Sort these {things} {order}: {items}. Reply only with the sorted list, separated by commas.",
        "Order these {things} {order} and answer with them alone, separated by commas: {items}",
    )
    new_wordings = ("Arrange the {things} {items} {order}. Write them with commas between them and add nothing.",)

    def __post_init__(self) -> None:
        name, items = f"{self.kind}.items", self.items
        require(len(items) > 1, name, items, "must be at least two items")
        bare = all(item.strip(SURROUND) == item != "" and not set(item) & set(",\n") for item in items)
        require(bare, name, items, "must be items without a comma inside or white space or quotation marks around them")
        if self.order != "alphabetical":
            ok = all(NUMBER.fullmatch(item) and len(item) <= 15 for item in items)
            require(ok, name, items, f"must be whole numbers to be sorted {self.order}")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> SortedList:
        order, count = rng.choice(("alphabetical", "ascending", "descending")), rng.randint(3, 5)
        if order == "alphabetical":
            return cls(rng.sample(WORDS, count), order)
        return cls([str(number) for number in rng.sample(range(1, 100), count)], order)

    def values(self) -> dict[str, Any]:
        alphabetical = self.order == "alphabetical"
        order = "alphabetically" if alphabetical else _ORDERS[self.order]
        return {"things": "words" if alphabetical else "numbers", "order": order, "items": ", ".join(self.items)}

    def expected(self) -> list[str]:
        if self.order == "alphabetical":
            return sorted(self.items, key=str.casefold)
        return sorted(self.items, key=int, reverse=self.order == "descending")


@dataclass(frozen=True)
class NumberSequence(_Sequence):
    """The numbers from `first` to `last` in steps of `step`, separated by commas, alone."""

    first: int = ranged(MISSING, at_least=-1_000_000, at_most=1_000_000)
    last: int = ranged(MISSING, at_least=-1_000_000, at_most=1_000_000)
    step: int = ranged(1, at_least=-1_000, at_most=1_000)

    kind = "number_sequence"
    wordings = (
        "Count from {first} to {last}{steps}. Reply only with the numbers, separated by commas.",
        "Write the numbers from {first} to {last}{steps}, with commas between them and nothing else.",
    )
    new_wordings = ("List the numbers {first} to {last}{steps} on one line, separated by commas, and add nothing.",)

    def __post_init__(self) -> None:
        ok = self.step != 0 and len(range(self.first, self.last, self.step)) in range(1, 1_000)
        require(ok, f"{self.kind}.step", self.step, "must lead from first to last in 1 to 999 steps")
        ends = (self.last - self.first) % self.step == 0
        require(ends, f"{self.kind}.last", self.last, f"can't be reached from {self.first} in steps of {self.step}")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> NumberSequence:
        first, step = rng.randint(1, 40), rng.choice((1, 1, 1, 2, 2, 3, 5, 10, -1))
        steps = rng.randint(3, 7)
        first = max(first, 10) if step < 0 else first
        return cls(first, first + steps * step, step)

    def values(self) -> dict[str, Any]:
        return {**self.params(), "steps": f" in steps of {abs(self.step)}" if abs(self.step) > 1 else ""}

    def expected(self) -> list[str]:
        end = self.last + (1 if self.step > 0 else -1)
        return [str(number) for number in range(self.first, end, self.step)]


@dataclass(frozen=True)
class Palindrome(Check):
    """The response reads the same backwards (letters and digits only) and has at least `letters` of them."""

    letters: int = ranged(MISSING, at_least=2, at_most=1_000)

    kind = "palindrome"
    forms = ("answer",)
    aspects = WHOLE_TEXT
    wordings = (
        "Write a palindrome (it reads the same backwards) of at least {letters} letters and nothing else.",
        "Give a word of {letters} or more letters that reads the same backwards. Reply with the word only.",
    )
    new_wordings = ("Answer with a palindrome that has {letters} letters or more, and with nothing else.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Palindrome:
        return cls(rng.randint(3, 9))

    def problems(self, response: str) -> list[Problem]:
        letters = "".join(character.casefold() for character in response if character.isalnum())
        span = inner(response)
        quote = excerpt(response, span)
        if letters != letters[::-1]:
            place = next(i for i, (a, b) in enumerate(zip(letters, letters[::-1])) if a != b)
            where = (
                f'character {place + 1:,} from the front is "{letters[place]}", from the back "{letters[-1 - place]}"'
            )
            sayings = (
                f"{quote} is not a palindrome: {where}.",
                f"The response should read the same backwards, but in {quote} {where}.",
            )
            return self.found(response, sayings, [span])
        if len(letters) < self.letters:
            saying = f"{quote} has {counted(len(letters), 'letter')}; at least {self.letters:,} were asked for."
            return self.found(response, [saying], [span])
        return []
