"""Capital and small letters, and characters that must not occur."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import ClassVar

from cut_dist.config_check import ranged
from cut_dist.verifiable.base import Check, Problem, Relation, Task, holds
from cut_dist.verifiable.text import Span, cut, excerpt, placed, words
from cut_dist.wording import counted

_CASE = frozenset({"case"})
_ANY = ("prose", "letter", "list", "points", "short")
_TOKEN = re.compile(r"\S+")
_SMALL_WORDS = frozenset(
    ["a", "an", "and", "as", "at", "but", "by", "for", "from", "if", "in", "into", "nor", "of", "off", "on", "onto"]
    + ["or", "out", "over", "per", "so", "than", "the", "to", "under", "up", "upon", "via", "with", "yet"]
    + ["about", "after", "against", "before", "between", "near", "through", "without"]  # some styles capitalize these
)


class _Offences(Check):
    """A demand that single words or characters break: quotes the first of them and counts all."""

    def _said(self, response: str, spans: Sequence[Span], noun: str, fault: str, demand: str) -> list[Problem]:
        if not spans:
            return []
        first = placed(response, spans[0])
        many = counted(len(spans), noun)
        more = f", and it is the first of {many}" if len(spans) > 1 else ""
        sayings = (
            f"{demand}, but {first} {fault}{more}.",
            f"{demand}. The response breaks this rule in {many}, first in {first}, which {fault}."
            if len(spans) > 1
            else f"{demand}; the response breaks this rule in {first}, which {fault}.",
        )
        return self.found(response, sayings, spans)


@dataclass(frozen=True)
class AllLowercase(_Offences):
    """No capital letter anywhere."""

    kind = "all_lowercase"
    forms = _ANY
    aspects = _CASE
    wordings = ("Write everything in lowercase letters.", "Use no capital letters.", "Use lowercase only.")
    new_wordings = ("Leave out all capital letters.",)

    def problems(self, response: str) -> list[Problem]:
        spans = [span for span in words(response) if any(map(str.isupper, cut(response, span)))]
        return self._said(response, spans, "word", "has a capital letter", "All letters should be lowercase")


@dataclass(frozen=True)
class AllUppercase(_Offences):
    """No small letter anywhere."""

    kind = "all_uppercase"
    forms = _ANY
    aspects = _CASE
    wordings = ("Write everything in capital letters.", "Use capital letters only.", "USE ONLY UPPERCASE LETTERS.")
    new_wordings = ("Leave out all lowercase letters.",)

    def problems(self, response: str) -> list[Problem]:
        spans = [span for span in words(response) if any(map(str.islower, cut(response, span)))]
        return self._said(response, spans, "word", "is not in capitals", "All letters should be capitals")


@dataclass(frozen=True)
class TitleCase(_Offences):
    """Every word begins with a capital letter, except articles, prepositions and conjunctions after the first."""

    kind = "title_case"
    forms = ("short",)
    aspects = _CASE
    wordings = ("Start every important word with a capital letter.", "Write it in title case.")
    new_wordings = ("Capitalize it like the title of a book.",)

    def problems(self, response: str) -> list[Problem]:
        spans = [
            span
            for number, span in enumerate(words(response))
            if response[span[0]].islower() and (number == 0 or cut(response, span) not in _SMALL_WORDS)
        ]
        return self._said(response, spans, "word", "begins with a small letter", "The response should be in title case")


@dataclass(frozen=True)
class CapitalWords(Check):
    """At least, at most or exactly `count` words are in capitals throughout; a word of one letter doesn't count."""

    relation: Relation = MISSING
    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "capital_words"
    forms = ("prose", "letter")
    aspects = _CASE
    wordings = (
        "Write {relation} {words} in ALL CAPITALS.",
        "Put {relation} {words} in capital letters throughout, LIKE THIS.",
    )
    new_wordings = ("Let {relation} {words} be written entirely in capitals.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> CapitalWords:
        return cls(rng.choice(("at least", "at least", "exactly")), rng.randint(1, 4))

    def values(self) -> dict[str, str]:
        return {"relation": self.relation, "words": counted(self.count, "word")}

    def problems(self, response: str) -> list[Problem]:
        spans = [span for span in words(response) if _is_capital(cut(response, span))]
        if holds(len(spans), self.relation, self.count):
            return []
        demand = f"{self.relation} {self.count:,}"
        have = f"{counted(len(spans), 'word')} in all capitals" if spans else "no word in all capitals"
        if len(spans) > self.count:
            surplus = spans[self.count :]
            sayings = (
                f"The response has {have}, but {demand} {_was(self.count)} asked for; {excerpt(response, surplus[0])} "
                "is one too many.",
            )
            return self.found(response, sayings, surplus)
        sayings = (
            f"The response has {have}, but the instruction asks for {demand}.",
            f"{demand.capitalize()} {'word' if self.count == 1 else 'words'} should be in all capitals; the response "
            f"has {f'only {excerpt(response, spans[0])}' if len(spans) == 1 else len(spans) or 'none'}.",
        )
        return self.found(response, sayings)


def _is_capital(word: str) -> bool:
    return word.isupper() and sum(map(str.isalpha, word)) > 1


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


class _NoCharacter(_Offences):
    """None of a set of characters occurs."""

    wrong: ClassVar[re.Pattern]
    forms = ("prose", "letter", "short")
    fault: ClassVar[str]
    demand: ClassVar[str]

    def problems(self, response: str) -> list[Problem]:
        # The token around the character is quoted: a lone comma would not be found again.
        spans = [m.span() for m in _TOKEN.finditer(response) if self.wrong.search(m[0])]
        return self._said(response, spans, "place", self.fault, self.demand)


@dataclass(frozen=True)
class NoCommas(_NoCharacter):
    """No comma."""

    kind = "no_commas"
    aspects = frozenset({"commas"})
    wrong = re.compile(",")
    fault, demand = "has a comma", "There should be no commas"
    wordings = ("Do not use any commas.", "Write it without commas.", "Use no commas.")
    new_wordings = ("Leave out all commas.",)


@dataclass(frozen=True)
class NoDigits(_NoCharacter):
    """No digit from 0 to 9."""

    kind = "no_digits"
    forms = ("prose", "letter", "list", "points")
    aspects = frozenset({"digits"})
    wrong = re.compile("[0-9]")
    fault, demand = "has a digit", "Digits should not be used"
    wordings = ("Do not use any digits.", "Do not write any numbers in digits.")
    new_wordings = ("Leave out the digits 0 to 9.",)


@dataclass(frozen=True)
class NoExclamationMarks(_NoCharacter):
    """No exclamation mark."""

    kind = "no_exclamation_marks"
    aspects = frozenset({"exclamation"})
    wrong = re.compile("!")
    fault, demand = "has an exclamation mark", "No exclamation mark is allowed"
    wordings = ("Do not use exclamation marks.", "Write it without exclamation marks.")
    new_wordings = ("Leave out exclamation marks.",)
