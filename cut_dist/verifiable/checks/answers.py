"""Questions with one right answer that a program knows: sums, letters, lists in order, dates."""

from __future__ import annotations

import datetime
import operator
import random
import re
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from cut_dist.config_check import require
from cut_dist.verifiable.base import WHOLE_TEXT, Check, Problem, Task, times
from cut_dist.verifiable.checks.answer_words import WORDS
from cut_dist.verifiable.text import cut, excerpt, inner

_SUM = re.compile(r"(\d{1,6}) ([+*-]) (\d{1,6})")
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
NUMBER = re.compile(r"-?\d+")
SURROUND = " \t\"'“”‘’`*."


class _Answer(Check):
    """The response is one known answer and nothing else; a full stop or quotation marks around it are let pass."""

    forms = ("answer",)
    aspects = WHOLE_TEXT

    def answer(self) -> str:
        """The right answer."""
        raise NotImplementedError

    def fact(self) -> str:
        """The right answer as a clause that can begin a sentence or end it."""
        raise NotImplementedError

    def problems(self, response: str) -> list[Problem]:
        span = inner(response)
        given, quote, answer = cut(response, span).strip(SURROUND).casefold(), excerpt(response, span), self.answer()
        if re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", given) == answer.casefold():
            return []
        if re.search(rf"(?<![\w.,-]){re.escape(answer)}(?![\w-]|[.,]\d)", response, re.IGNORECASE):
            sayings = [
                f'The answer should be "{answer}" alone, but the response is {quote}.',
                f'Nothing but "{answer}" was asked for; the response is {quote}.',
            ]
        else:
            sayings = [f"{self.fact()}, but the response is {quote}."]
            # "Nineteen" isn't a wrong result, only one in the wrong form.
            if given.isdecimal() or (given.isalpha() and not NUMBER.fullmatch(answer)):
                sayings.append(f"The answer {quote} is wrong: {self.fact()}.")
        return self.found(response, sayings, [span])


@dataclass(frozen=True)
class Arithmetic(_Answer):
    """The result of a sum such as "12 + 7", alone; operators are +, - and *."""

    expression: str = MISSING

    kind = "arithmetic"
    wordings = (
        "What is {expression}? Answer with the number only.",
        "Calculate {expression}. Reply with just the result.",
        "How much is {expression}? Write only the number.",
    )
    new_wordings = ("Work out {expression} and write the result and nothing else.",)

    def __post_init__(self) -> None:
        ok = bool(_SUM.fullmatch(self.expression))
        require(ok, f"{self.kind}.expression", self.expression, 'must be two whole numbers with +, - or *: "12 + 7"')

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Arithmetic:
        sign = rng.choice("++--*")
        first, second = rng.randint(2, 12 if sign == "*" else 60), rng.randint(2, 12 if sign == "*" else 40)
        return cls(f"{max(first, second)} {sign} {min(first, second)}")

    def answer(self) -> str:
        first, sign, second = _SUM.fullmatch(self.expression).groups()
        return str(_OPERATORS[sign](int(first), int(second)))

    def fact(self) -> str:
        return f"{self.expression} is {self.answer()}"


@dataclass(frozen=True)
class LetterCount(_Answer):
    """How often `letter` occurs in `word`, as a number alone."""

    word: str = MISSING
    letter: str = MISSING

    kind = "letter_count"
    wordings = (
        'How many times does the letter "{letter}" occur in "{word}"? Answer with the number only.',
        'Count the letter "{letter}" in the word "{word}". Reply with just the number.',
    )
    new_wordings = ('How often is the letter "{letter}" found in "{word}"? Write a number and nothing else.',)

    def __post_init__(self) -> None:
        require(bool(self.word.strip()), f"{self.kind}.word", self.word, "must not be blank")
        require(len(self.letter) == 1, f"{self.kind}.letter", self.letter, "must be one letter")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> LetterCount:
        word = rng.choice(WORDS)
        return cls(word, rng.choice(word))

    def answer(self) -> str:
        return str(self.word.casefold().count(self.letter.casefold()))

    def fact(self) -> str:
        return f'"{self.word}" has the letter "{self.letter}" {times(int(self.answer()))}'


@dataclass(frozen=True)
class ReversedWord(_Answer):
    """`word` backwards, alone."""

    word: str = MISSING

    kind = "reversed_word"
    wordings = (
        'Write the word "{word}" backwards. Reply with the result only.',
        'Spell "{word}" in reverse and write nothing else.',
    )
    new_wordings = ('Turn the letters of "{word}" around, last one first. Answer with that only.',)

    def __post_init__(self) -> None:
        require(self.word.isalpha(), f"{self.kind}.word", self.word, "must be one word of letters")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> ReversedWord:
        return cls(rng.choice([word for word in WORDS if len(word) < 7]))

    def answer(self) -> str:
        return self.word[::-1]

    def fact(self) -> str:
        return f'"{self.word}" backwards is "{self.answer()}"'


@dataclass(frozen=True)
class SpelledWord(_Answer):
    """The letters of `word` with hyphens between them, alone."""

    word: str = MISSING

    kind = "spelled_word"
    wordings = (
        'Write the word "{word}" with a hyphen between the letters, like c-a-t. Write nothing else.',
        'Spell "{word}" letter by letter with hyphens, as in c-a-t. Reply with that only.',
    )
    new_wordings = ('Put hyphens between the letters of "{word}" (as in c-a-t) and answer with the result alone.',)

    def __post_init__(self) -> None:
        require(self.word.isalpha(), f"{self.kind}.word", self.word, "must be one word of letters")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> SpelledWord:
        return cls(rng.choice(WORDS))

    def answer(self) -> str:
        return "-".join(self.word)

    def fact(self) -> str:
        return f'"{self.word}" with hyphens is "{self.answer()}"'


@dataclass(frozen=True)
class DateForm(_Answer):
    """The date `date` (YYYY-MM-DD) written in `form`, alone."""

    date: str = MISSING
    form: Literal["YYYY-MM-DD", "DD/MM/YYYY"] = "YYYY-MM-DD"

    kind = "date_form"
    wordings = (
        "Write the date {spelled} in the form {form}. Reply with the date only.",
        "Convert {spelled} to {form} and write nothing else.",
    )
    new_wordings = ("How is {spelled} written as {form}? Answer with the date alone.",)

    def __post_init__(self) -> None:
        try:
            ok = datetime.date.fromisoformat(self.date).isoformat() == self.date
        except ValueError:
            ok = False
        require(ok, f"{self.kind}.date", self.date, "must be a date in the form YYYY-MM-DD")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> DateForm:
        day = datetime.date(1950, 1, 1) + datetime.timedelta(days=rng.randrange(36_500))
        return cls(day.isoformat(), rng.choice(("YYYY-MM-DD", "YYYY-MM-DD", "DD/MM/YYYY")))

    def values(self) -> dict[str, Any]:
        return {"spelled": self._spelled(), "form": self.form}

    def _spelled(self) -> str:
        day = datetime.date.fromisoformat(self.date)
        return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"

    def answer(self) -> str:
        year, month, day = self.date.split("-")
        return self.date if self.form == "YYYY-MM-DD" else f"{day}/{month}/{year}"

    def fact(self) -> str:
        return f'{self._spelled()} in the form {self.form} is "{self.answer()}"'


