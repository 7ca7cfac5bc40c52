"""How long the response is: words, sentences, paragraphs."""

from __future__ import annotations

import random
from dataclasses import MISSING, dataclass

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import Check, Problem, Relation, Task, holds
from cut_dist.verifiable.text import Span, excerpt, paragraphs, sentences, words
from cut_dist.wording import counted

_LENGTH = frozenset({"length"})
_MOST = 10_000


class _WordCount(Check):
    """What the four kinds of word counts share: the sayings for too few and for too many."""

    aspects = _LENGTH

    def _too_few(self, response: str, found: list[Span], wanted: int, demand: str) -> list[Problem]:
        if not found:
            return self.found(response, [f"The response has no words at all, but {demand} were asked for."])
        have, short = counted(len(found), "word"), wanted - len(found)
        end = excerpt(response, _last_words(response, found))
        missing = "one is missing" if short == 1 else f"{counted(short, 'word')} are missing"
        sayings = (
            f"The response has {have}, but {demand} were asked for; {missing}.",
            f"It is too short: it ends with {end} after {have}, and {demand} were wanted.",
            f"After {have} the response stops, at {end}. The instruction wants {demand}.",
        )
        return self.found(response, sayings)

    def _too_many(self, response: str, found: list[Span], wanted: int, demand: str) -> list[Problem]:
        have, over = counted(len(found), "word"), len(found) - wanted
        rest = (found[wanted][0], found[-1][1])
        quote = excerpt(response, rest)
        sayings = (
            f"The response has {have}, {over:,} more than allowed ({demand}); from {quote} on it is too long.",
            f"It is too long: {have}, where the instruction wants {demand}. It should have ended before {quote}.",
            f"With {have} the response breaks the limit ({demand}); word {wanted + 1:,} and what follows, {quote}, "
            "are over it.",
        )
        return self.found(response, sayings, [rest])


def _last_words(response: str, found: list[Span]) -> Span:
    """The last four words, or as many as their line has."""
    end = found[-1][1]
    return max(found[-min(4, len(found))][0], response.rfind("\n", 0, end) + 1), end


@dataclass(frozen=True)
class MinWords(_WordCount):
    """At least `words` words."""

    words: int = ranged(MISSING, at_least=1, at_most=_MOST)

    kind = "min_words"
    forms = ("prose", "letter")
    wordings = (
        "Use at least {words} words.",
        "Write {words} words or more.",
        "Your answer should have at least {words} words.",
    )
    new_wordings = ("Make it no shorter than {words} words.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> MinWords:
        return cls(rng.choice((15, 20, 25, 30, 40, 50, 60, 80)))

    def problems(self, response: str) -> list[Problem]:
        found = words(response)
        if len(found) >= self.words:
            return []
        return self._too_few(response, found, self.words, f"at least {self.words:,}")


@dataclass(frozen=True)
class MaxWords(_WordCount):
    """At most `words` words."""

    words: int = ranged(MISSING, at_least=1, at_most=_MOST)

    kind = "max_words"
    forms = ("prose", "letter", "list", "points", "short")
    wordings = (
        "Use at most {words} words.",
        "Do not write more than {words} words.",
        "Keep it to {words} words or fewer.",
    )
    new_wordings = ("Stay within {words} words.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> MaxWords:
        return cls(rng.choice((5, 6, 7, 8, 10) if task.form == "short" else (20, 25, 30, 40, 50)))

    def problems(self, response: str) -> list[Problem]:
        found = words(response)
        if len(found) <= self.words:
            return []
        return self._too_many(response, found, self.words, f"at most {self.words:,}")


@dataclass(frozen=True)
class WordRange(_WordCount):
    """Between `low` and `high` words, both included."""

    low: int = ranged(MISSING, at_least=1, at_most=_MOST)
    high: int = ranged(MISSING, at_least=1, at_most=_MOST)

    kind = "word_range"
    forms = ("prose", "letter")
    wordings = ("Use between {low} and {high} words.", "Write {low} to {high} words.")
    new_wordings = ("The length should be from {low} to {high} words.",)

    def __post_init__(self) -> None:
        require(self.low <= self.high, f"{self.kind}.low", self.low, f"must not be more than high={self.high}")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> WordRange:
        low = rng.choice((10, 15, 20, 30, 40, 50))
        return cls(low, low + rng.choice((10, 15, 20, 30)))

    def problems(self, response: str) -> list[Problem]:
        found, demand = words(response), f"{self.low:,} to {self.high:,}"
        if len(found) < self.low:
            return self._too_few(response, found, self.low, demand)
        return self._too_many(response, found, self.high, demand) if len(found) > self.high else []


@dataclass(frozen=True)
class ExactWords(_WordCount):
    """Exactly `words` words."""

    words: int = ranged(MISSING, at_least=1, at_most=_MOST)

    kind = "exact_words"
    forms = ("short",)
    wordings = ("Use exactly {words} words.", "It must be exactly {words} words long.")
    new_wordings = ("Write {words} words, no more and no fewer.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> ExactWords:
        return cls(rng.randint(2, 7))

    def problems(self, response: str) -> list[Problem]:
        found, demand = words(response), f"exactly {self.words:,}"
        if len(found) < self.words:
            return self._too_few(response, found, self.words, demand)
        return self._too_many(response, found, self.words, demand) if len(found) > self.words else []


@dataclass(frozen=True)
class SentenceCount(Check):
    """At least, at most or exactly `count` sentences."""

    relation: Relation = MISSING
    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "sentence_count"
    forms = ("prose",)  # greetings and signatures of a letter are neither clearly sentences nor clearly none
    aspects = frozenset({"length", "sentences"})
    wordings = (
        "Use {relation} {count} sentences.",
        "Answer in {relation} {count} sentences.",
        "Write {relation} {count} sentences.",
    )
    new_wordings = ("The answer should be {relation} {count} sentences long.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> SentenceCount:
        return cls(rng.choice(("at least", "at most", "exactly")), rng.randint(2, 5))

    def problems(self, response: str) -> list[Problem]:
        found = sentences(response)
        if holds(len(found), self.relation, self.count):
            return []
        have, demand = counted(len(found), "sentence"), f"{self.relation} {self.count:,}"
        if len(found) > self.count:
            quote = excerpt(response, found[self.count])
            sayings = (
                f"The response has {have}, but the instruction asks for {demand}; sentence {self.count + 1:,}, "
                f"{quote}, is already too many.",
                f"{demand.capitalize()} {'was' if self.count == 1 else 'were'} wanted, and the response has {have}: "
                f"from {quote} on it goes too far.",
            )
            return self.found(response, sayings, found[self.count :])
        if not found:
            return self.found(response, [f"The response has no sentence at all, but {demand} were asked for."])
        last = excerpt(response, found[-1])
        sayings = (
            f"The response has {have}, but the instruction asks for {demand}.",
            f"Only {have} can be counted, where {demand} were asked for; the last one is {last}.",
        )
        return self.found(response, sayings)


@dataclass(frozen=True)
class ParagraphCount(Check):
    """Exactly `count` paragraphs with a blank line between them."""

    count: int = ranged(MISSING, at_least=1, at_most=200)

    kind = "paragraph_count"
    forms = ("prose", "letter")
    aspects = frozenset({"layout", "sentences"})
    wordings = (
        "Write exactly {count} paragraphs with a blank line between them.",
        "Split your answer into {count} paragraphs, separated by blank lines.",
    )
    new_wordings = ("There should be {count} paragraphs, divided by blank lines.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> ParagraphCount:
        return cls(rng.choice((2, 2, 3, 4)))

    def problems(self, response: str) -> list[Problem]:
        found = paragraphs(response)
        if len(found) == self.count:
            return []
        have, demand = counted(len(found), "paragraph"), f"exactly {self.count:,}"
        if len(found) > self.count:
            quote = excerpt(response, found[self.count])
            sayings = (
                f"The response has {have} instead of {self.count:,}: the one that begins {quote} is too many.",
                f"There should be {demand}, but blank lines part the response into {have}; the first one too many "
                f"begins {quote}.",
            )
            return self.found(response, sayings, found[self.count :])
        if not found:
            return self.found(response, [f"The response has no text, but {demand} paragraphs were asked for."])
        begins = excerpt(response, found[-1])
        sayings = (
            f"The response has {have}, but {counted(self.count, 'paragraph')} with blank lines between them were "
            f"asked for; {'it' if len(found) == 1 else 'the last one'} begins {begins}.",
            f"Blank lines part the response into only {have}, where {demand} were wanted.",
        )
        return self.found(response, sayings)
