"""Which letters the words of the response are made of."""

from __future__ import annotations

import random
from dataclasses import MISSING, dataclass
from typing import Any

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import Check, Problem, Relation, Task, holds, times
from cut_dist.verifiable.text import Span, cut, excerpt, words
from cut_dist.wording import counted

_SPELLING = frozenset({"vocabulary", "letters", "opening", "ending", "case"})


def _check_letter(check: Check, letter: str) -> None:
    ok = len(letter) == 1 and letter.isalpha() and letter == letter.lower()
    require(ok, f"{check.kind}.letter", letter, "must be one lowercase letter")


@dataclass(frozen=True)
class LetterFrequency(Check):
    """`letter` occurs at least, at most or exactly `count` times, in capitals or not."""

    letter: str = MISSING
    relation: Relation = MISSING
    count: int = ranged(MISSING, at_least=1, at_most=10_000)

    kind = "letter_frequency"
    forms = ("prose", "letter")
    aspects = frozenset({"letters"})
    wordings = (
        'The letter "{letter}" should occur {relation} {times}.',
        'Use the letter "{letter}" {relation} {times}.',
    )
    new_wordings = ('Let the letter "{letter}" appear {relation} {times}.',)

    def __post_init__(self) -> None:
        _check_letter(self, self.letter)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> LetterFrequency:
        return cls(rng.choice("bcdfghklmpuvwy"), "at least", rng.randint(2, 8))

    def values(self) -> dict[str, Any]:
        return {**self.params(), "times": times(self.count)}

    def problems(self, response: str) -> list[Problem]:
        spans = [(i, i + 1) for i, character in enumerate(response) if character.lower() == self.letter]
        if holds(len(spans), self.relation, self.count):
            return []
        have = f"occurs {times(len(spans))}" if spans else "never occurs"
        demand = f"{self.relation} {times(self.count)}"
        if len(spans) <= self.count:
            sayings = (
                f'The letter "{self.letter}" {have} in the response, but {demand} was asked for.',
                f'The instruction wants the letter "{self.letter}" {demand}; it {have}.',
            )
            return self.found(response, sayings)
        surplus = spans[self.count :]
        within = next((w for w in words(response) if w[0] <= surplus[0][0] < w[1]), surplus[0])
        sayings = (
            f'The letter "{self.letter}" {have}, but {demand} was asked for; the first one too many, '
            f"{excerpt(response, surplus[0])}, is in {excerpt(response, within)}.",
        )
        return self.found(response, sayings, surplus)


class _EveryWord(Check):
    """A demand on each word: says which words break it."""

    forms = ("short",)
    aspects = _SPELLING

    def _broken(self, response: str, spans: list[Span], fault: str, demand: str) -> list[Problem]:
        if not spans:
            return []
        first = excerpt(response, spans[0])
        # No word twice in one judgment, and no more than three of them.
        names = list(dict.fromkeys(excerpt(response, span) for span in spans))
        others = f", and the same is true of {' and '.join(names[1:3])}" if names[1:] else ""
        many = f"{counted(len(spans), 'word')} of the response break the rule to use {demand}; the first is {first}."
        sayings = (
            f"The word {first} {fault}{others}; the instruction asks for {demand}.",
            many if len(spans) > 1 else f"Only {demand} should be used, but {first} {fault}.",
        )
        return self.found(response, sayings, spans)


@dataclass(frozen=True)
class ForbiddenLetter(_EveryWord):
    """No word contains `letter`, in capitals or not."""

    letter: str = MISSING

    kind = "forbidden_letter"
    wordings = ('Do not use the letter "{letter}".', 'Use only words without the letter "{letter}".')
    new_wordings = ('The letter "{letter}" must not occur.',)

    def __post_init__(self) -> None:
        _check_letter(self, self.letter)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> ForbiddenLetter:
        return cls(rng.choice("aeioustrnl"))

    def problems(self, response: str) -> list[Problem]:
        spans = [span for span in words(response) if self.letter in cut(response, span).lower()]
        fault = f'has the letter "{self.letter}"'
        return self._broken(response, spans, fault, f'words without "{self.letter}"')


@dataclass(frozen=True)
class MaxWordLength(_EveryWord):
    """No word has more than `letters` letters."""

    letters: int = ranged(MISSING, at_least=1, at_most=100)

    kind = "max_word_length"
    wordings = ("Use only words of at most {letters} letters.", "No word may have more than {letters} letters.")
    new_wordings = ("Keep every word to {letters} letters or fewer.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> MaxWordLength:
        return cls(rng.randint(4, 8))

    def problems(self, response: str) -> list[Problem]:
        spans = [span for span in words(response) if sum(map(str.isalpha, cut(response, span))) > self.letters]
        most = counted(self.letters, "letter")
        return self._broken(response, spans, f"has more than {most}", f"words of at most {most}")


@dataclass(frozen=True)
class EveryWordStartsWith(_EveryWord):
    """Every word begins with `letter`, in capitals or not."""

    letter: str = MISSING

    kind = "every_word_starts_with"
    wordings = ('Every word must start with the letter "{letter}".', 'Use only words that begin with "{letter}".')
    new_wordings = ('Let each word begin with the letter "{letter}".',)

    def __post_init__(self) -> None:
        _check_letter(self, self.letter)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> EveryWordStartsWith:
        return cls(rng.choice("abcdfghlmprstw"))

    def problems(self, response: str) -> list[Problem]:
        spans = [span for span in words(response) if not cut(response, span).lower().startswith(self.letter)]
        fault, demand = f'does not begin with "{self.letter}"', f'words that begin with "{self.letter}"'
        return self._broken(response, spans, fault, demand)


