"""Which words and letters the response uses."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Any

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import Check, Problem, Relation, Task, holds, listed, times
from cut_dist.verifiable.text import Span, cut, excerpt, placed, sentences, words

_VOCABULARY = frozenset({"vocabulary"})


def occurrences(text: str, word: str) -> list[Span]:
    """Where a word or phrase stands by itself, in capitals or not: "art" is not in "heart"."""
    return [m.span() for m in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)]


def _check_words(check: Check, name: str, items: Sequence[str]) -> None:
    require(len(items) > 0, f"{check.kind}.{name}", list(items), "must name at least one word")
    for item in items:
        bare = bool(item) and item == item.strip()
        require(bare, f"{check.kind}.{name}", item, "must be a word without white space around it")


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
        first = placed(response, spans[0])
        within = next((s for s in sentences(response) if s[0] <= spans[0][0] < s[1]), spans[0])
        sayings = (
            f"The response uses {first}, which the instruction forbids."
            if len(spans) == 1
            else f"Forbidden words occur {times(len(spans))}, first {first}.",
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
        return {**self.params(), "times": times(self.count)}

    def problems(self, response: str) -> list[Problem]:
        spans = occurrences(response, self.word)
        if holds(len(spans), self.relation, self.count):
            return []
        have = f"occurs {times(len(spans))}" if spans else "never occurs"
        demand = f"{self.relation} {times(self.count)}"
        if len(spans) > self.count:
            surplus = spans[self.count :]
            where = placed(response, surplus[0])
            sayings = (
                f'The word "{self.word}" {have}, but {demand} was asked for; {where} is one too many.',
                f'"{self.word}" should occur {demand}, and it {have}; from {where} on it is too often.',
            )
            return self.found(response, sayings, surplus)
        sayings = (
            f'The word "{self.word}" {have}, but {demand} was asked for.',
            f'The response should use "{self.word}" {demand}; it {have}.',
        )
        return self.found(response, sayings)


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
