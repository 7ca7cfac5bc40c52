"""Questions with one right answer that a program knows: sums, letters, lists in order, dates."""

from __future__ import annotations

import datetime
import operator
import random
import re
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import Check, Problem, Task
from cut_dist.verifiable.checks.answer_words import WORDS
from cut_dist.verifiable.text import Span, cut, excerpt, following, inner
from cut_dist.wording import counted

_ALONE = frozenset({"alone"})
_SUM = re.compile(r"(\d{1,6}) ([+*-]) (\d{1,6})")
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_ORDERS = {"ascending": "from small to large", "descending": "from large to small"}
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_NUMBER = re.compile(r"-?\d+")
_SURROUND = " \t\"'“”‘’`*."


class _Answer(Check):
    """The response is one known answer and nothing else; a full stop or quotation marks around it are let pass."""

    forms = ("answer",)
    aspects = _ALONE

    def answer(self) -> str:
        """The right answer."""
        raise NotImplementedError

    def fact(self) -> str:
        """The right answer as a clause that can begin a sentence or end it."""
        raise NotImplementedError

    def problems(self, response: str) -> list[Problem]:
        span = inner(response)
        given, quote, answer = cut(response, span).strip(_SURROUND).casefold(), excerpt(response, span), self.answer()
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
            if given.isdecimal() or (given.isalpha() and not _NUMBER.fullmatch(answer)):
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
        return f'"{self.word}" has the letter "{self.letter}" {counted(int(self.answer()), "time")}'


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


class _Sequence(Check):
    """The response is a known list on one line, separated by commas, and nothing else."""

    forms = ("answer",)
    aspects = _ALONE

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
        items = [_trimmed(response, item) for item in items if cut(response, item).strip(_SURROUND)]
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
    start = item[0] + len(text) - len(text.lstrip(_SURROUND))
    return start, start + len(text.strip(_SURROUND))


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
        bare = all(item.strip(_SURROUND) == item != "" and not set(item) & set(",\n") for item in items)
        require(bare, name, items, "must be items without a comma inside or white space or quotation marks around them")
        if self.order != "alphabetical":
            ok = all(_NUMBER.fullmatch(item) and len(item) <= 15 for item in items)
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
    aspects = _ALONE
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
            ordinal = {0: "first", 1: "second", 2: "third"}.get(place)
            where = (
                f'the {ordinal} letter from the front is "{letters[place]}", from the back "{letters[-1 - place]}"'
                if ordinal
                else "backwards it is something else"
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
