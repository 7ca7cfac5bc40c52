"""Which words and letters the response uses."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Any

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import Check, Problem, Relation, Task, holds, listed
from cut_dist.verifiable.text import Span, cut, excerpt, placed, sentences, words
from cut_dist.wording import counted

_VOCABULARY = frozenset({"vocabulary"})
_SPELLING = frozenset({"vocabulary", "letters", "opening", "ending", "case"})


def occurrences(text: str, word: str) -> list[Span]:
    """Where a word or phrase stands by itself, in capitals or not: "art" is not in "heart"."""
    return [m.span() for m in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)]


def _check_words(check: Check, name: str, items: Sequence[str]) -> None:
    require(len(items) > 0, f"{check.kind}.{name}", list(items), "must name at least one word")
    for item in items:
        bare = bool(item) and item == item.strip()
        require(bare, f"{check.kind}.{name}", item, "must be a word without white space around it")


def _check_letter(check: Check, letter: str) -> None:
    ok = len(letter) == 1 and letter.isalpha() and letter == letter.lower()
    require(ok, f"{check.kind}.letter", letter, "must be one lowercase letter")


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


@dataclass(frozen=True)
class IncludeWords(Check):
    """Every one of `words` occurs, in capitals or not."""

    words: list[str] = MISSING

    kind = "include_words"
    forms = ("prose", "letter")
    aspects = _VOCABULARY
    wordings = ("Use the {noun} {words}.", "Include the {noun} {words} in your answer.", "Mention the {noun} {words}.")
    new_wordings = ("The {noun} {words} must appear.",)

    def __post_init__(self) -> None:
        _check_words(self, "words", self.words)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> IncludeWords:
        return cls(rng.sample(task.words, rng.choice((1, 1, 2))))

    def values(self) -> dict[str, Any]:
        return {"noun": "word" if len(self.words) == 1 else "words", "words": listed(self.words)}

    def problems(self, response: str) -> list[Problem]:
        missing = [word for word in self.words if not occurrences(response, word)]
        if not missing:
            return []
        names, many = listed(missing), len(missing) > 1
        sayings = (
            f"The {'words' if many else 'word'} {names} {'are' if many else 'is'} missing from the response.",
            f"The response should contain {names}, but never does.",
            f"The instruction asks for {names}, which the response does not use.",
        )
        return self.found(response, sayings)


@dataclass(frozen=True)
class ForbiddenWords(Check):
    """None of `words` occurs, in capitals or not."""

    words: list[str] = MISSING

    kind = "forbidden_words"
    forms = ("prose", "letter")
    aspects = _VOCABULARY
    wordings = ("Do not use the {noun} {words}.", "Avoid the {noun} {words}.", "Write it without the {noun} {words}.")
    new_wordings = ("The {noun} {words} must not appear.",)

    def __post_init__(self) -> None:
        _check_words(self, "words", self.words)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> ForbiddenWords:
        return cls(rng.sample(task.words, rng.choice((1, 1, 2))))

    def values(self) -> dict[str, Any]:
        return {"noun": "word" if len(self.words) == 1 else "words", "words": listed(self.words, "and")}

    def problems(self, response: str) -> list[Problem]:
        spans = sorted({span for word in self.words for span in occurrences(response, word)})
        if not spans:
            return []
        first, times = placed(response, spans[0]), _times(len(spans))
        within = next((s for s in sentences(response) if s[0] <= spans[0][0] < s[1]), spans[0])
        sayings = (
            f"The response uses {first}, which the instruction forbids."
            if len(spans) == 1
            else f"Forbidden words occur {times}, first {first}.",
            f"The word {excerpt(response, spans[0])} was to be avoided, but it stands in {excerpt(response, within)}.",
        )
        return self.found(response, sayings, spans)


@dataclass(frozen=True)
class WordFrequency(Check):
    """`word` occurs at least, at most or exactly `count` times, in capitals or not."""

    word: str = MISSING
    relation: Relation = MISSING
    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "word_frequency"
    forms = ("prose", "letter")
    aspects = _VOCABULARY
    wordings = ('Use the word "{word}" {relation} {times}.', 'The word "{word}" should appear {relation} {times}.')
    new_wordings = ('Let the word "{word}" occur {relation} {times}.',)

    def __post_init__(self) -> None:
        _check_words(self, "word", [self.word])

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> WordFrequency:
        return cls(rng.choice(task.words), rng.choice(("at least", "exactly")), rng.choice((2, 2, 3)))

    def values(self) -> dict[str, Any]:
        return {**self.params(), "times": _times(self.count)}

    def problems(self, response: str) -> list[Problem]:
        spans = occurrences(response, self.word)
        if holds(len(spans), self.relation, self.count):
            return []
        have = _times(len(spans)) if spans else "never"
        demand = f"{self.relation} {_times(self.count)}"
        if len(spans) > self.count:
            surplus = spans[self.count :]
            where = placed(response, surplus[0])
            sayings = (
                f'The word "{self.word}" occurs {have}, but {demand} was asked for; {where} is one too many.',
                f'"{self.word}" should appear {demand} and appears {have}, too often from {where} on.',
            )
            return self.found(response, sayings, surplus)
        sayings = (
            f'The word "{self.word}" occurs {have}, but {demand} was asked for.',
            f'The response should use "{self.word}" {demand}; it {"never does" if not spans else f"does so {have}"}.',
        )
        return self.found(response, sayings)


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
        return {**self.params(), "times": _times(self.count)}

    def problems(self, response: str) -> list[Problem]:
        spans = [(i, i + 1) for i, character in enumerate(response) if character.lower() == self.letter]
        if holds(len(spans), self.relation, self.count):
            return []
        have, demand = _times(len(spans)) if spans else "never", f"{self.relation} {_times(self.count)}"
        if len(spans) <= self.count:
            sayings = (
                f'The letter "{self.letter}" occurs {have} in the response, but {demand} was asked for.',
                f'The instruction wants the letter "{self.letter}" {demand}; the response has it {have}.',
            )
            return self.found(response, sayings)
        surplus = spans[self.count :]
        within = next((w for w in words(response) if w[0] <= surplus[0][0] < w[1]), surplus[0])
        sayings = (
            f'The letter "{self.letter}" occurs {have}, but {demand} was asked for; the first one too many, '
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
        sayings = (
            f"The word {first} {fault}{others}; the instruction asks for {demand}.",
            f"{counted(len(spans), 'word')} of the response {'breaks' if len(spans) == 1 else 'break'} the rule to use "
            f"{demand}: the first is {first}.",
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


@dataclass(frozen=True)
class DistinctSentences(Check):
    """No sentence occurs twice, in capitals or not."""

    kind = "distinct_sentences"
    forms = ("prose", "letter")
    aspects = frozenset({"repetition"})
    wordings = ("Do not repeat a sentence.", "Never write the same sentence twice.")
    new_wordings = ("Each sentence should be new.",)

    def problems(self, response: str) -> list[Problem]:
        seen: dict[str, int] = {}
        repeats: list[tuple[Span, int, int]] = []
        for number, span in enumerate(sentences(response), start=1):
            sentence = cut(response, span)
            key = " ".join(cut(sentence, word) for word in words(sentence)).casefold()
            if key in seen:
                repeats.append((span, number, seen[key]))
            seen.setdefault(key, number)
        if not repeats:
            return []
        span, number, first = repeats[0]
        quote = excerpt(response, span)
        sayings = (
            f"Sentence {number:,}, {quote}, only repeats sentence {first:,}.",
            f"The response says {quote} again in sentence {number:,}, though no sentence should be repeated.",
        )
        return self.found(response, sayings, [span for span, _, _ in repeats])
