"""How the response begins and ends, and what it is wrapped in."""

from __future__ import annotations

import random
from dataclasses import MISSING, dataclass

from cut_dist.config_check import require
from cut_dist.verifiable.base import Check, Problem, Task, named
from cut_dist.verifiable.text import beginning, ending, excerpt, following

_OPENINGS = ("Here is my answer:", "Sure thing.", "Let me think.", "My answer is this:", "Well now.", "Of course.")
_ENDINGS = (
    "I hope this helps.",
    "That is all.",
    "Thank you for reading.",
    "Have a nice day.",
    "Is there anything else?",
    "The end.",
)


def _require_phrase(check: Check, phrase: str) -> None:
    ok = bool(phrase) and phrase == phrase.strip()
    require(ok, f"{check.kind}.phrase", phrase, "must be a phrase without white space around it")


@dataclass(frozen=True)
class StartsWith(Check):
    """The first words are `phrase`, with its capitals and punctuation."""

    phrase: str = MISSING

    kind = "starts_with"
    forms = ("prose", "letter", "list", "points")
    aspects = frozenset({"opening", "case"})
    wordings = ("Start with the words {phrase}", "Begin your answer with {phrase}")
    new_wordings = ("The first words should be {phrase}",)

    def __post_init__(self) -> None:
        _require_phrase(self, self.phrase)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> StartsWith:
        return cls(rng.choice(_OPENINGS))

    def values(self) -> dict[str, str]:
        return {"phrase": named(self.phrase)}

    def problems(self, response: str) -> list[Problem]:
        if response.lstrip().startswith(self.phrase):
            return []
        span = beginning(response)
        begins = excerpt(response, span)
        sayings = [
            f'The response begins with {begins}, but it should begin with "{self.phrase}".',
            f'The first words should be "{self.phrase}" and are {begins}.',
        ]
        if response.find(self.phrase) > 0:
            span = (span[0], response.index(self.phrase))
            before = excerpt(response, span)
            sayings = [f'"{self.phrase}" should be the very beginning, but it comes only after {before}.']
        return self.found(response, sayings, [span])


@dataclass(frozen=True)
class EndsWith(Check):
    """The last words are `phrase`, with its capitals and punctuation, and nothing follows."""

    phrase: str = MISSING

    kind = "ends_with"
    forms = ("prose", "letter", "list", "points")
    aspects = frozenset({"ending", "case"})
    wordings = ("End with the words {phrase}", "Finish your answer with {phrase}")
    new_wordings = ("The last words should be {phrase}",)

    def __post_init__(self) -> None:
        _require_phrase(self, self.phrase)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> EndsWith:
        return cls(rng.choice(_ENDINGS))

    def values(self) -> dict[str, str]:
        return {"phrase": named(self.phrase)}

    def problems(self, response: str) -> list[Problem]:
        if response.rstrip().endswith(self.phrase):
            return []
        at = response.rfind(self.phrase)
        if at >= 0:
            rest = following(response, at + len(self.phrase))
            goes_on = excerpt(response, rest)
            return self.found(response, [f'Nothing should follow "{self.phrase}", but {goes_on} does.'], [rest])
        span = ending(response)
        ends = excerpt(response, span)
        sayings = [
            f'The response ends with {ends}, but its last words should be "{self.phrase}".',
            f'The closing words "{self.phrase}" are missing; the last ones are {ends}.',
        ]
        return self.found(response, sayings, [span])


@dataclass(frozen=True)
class InDoubleQuotes(Check):
    """The first and the last character are double quotation marks, straight or curly."""

    kind = "in_double_quotes"
    forms = ("prose", "short")
    aspects = frozenset({"opening", "ending", "layout"})
    wordings = ("Put your whole answer in double quotation marks.", "Wrap the entire answer in double quotes.")
    new_wordings = ("Your answer should stand between double quotation marks.",)

    def problems(self, response: str) -> list[Problem]:
        text = response.strip()
        opened, closed = text[:1] in ('"', "“"), text[-1:] in ('"', "”") and len(text) > 1
        if opened and closed:
            return []
        begins, ends = beginning(response), ending(response)
        if opened:
            end = excerpt(response, ends)
            saying = f"The double quotation mark at the beginning is not closed: the response ends with {end}."
            return self.found(response, [saying], [ends])
        start = excerpt(response, begins)
        if closed:
            sayings = [f"The response ends with a double quotation mark but does not begin with one: {start}."]
        else:
            sayings = [
                f"The answer should stand in double quotation marks, but it begins {start} without one and has none "
                "at the end.",
                f"There are no double quotation marks around the answer, which begins {start}.",
            ]
        return self.found(response, sayings, [begins])


