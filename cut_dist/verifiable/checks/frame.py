"""How the response begins and ends, and what it is wrapped in."""

from __future__ import annotations

import random
import re
from dataclasses import MISSING, dataclass

from cut_dist.config_check import require
from cut_dist.verifiable.base import Check, Problem, Task
from cut_dist.verifiable.text import Span, cut, excerpt, following, line_number, lines, placed

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


def _named(phrase: str) -> str:
    """A phrase in quotation marks at the end of a sentence, with a full stop unless the phrase has its own."""
    return f'"{phrase}"' if phrase.endswith((".", "!", "?")) else f'"{phrase}".'


def _beginning(response: str) -> Span:
    """About as much of the beginning as an opening phrase has: the first line, at most 60 characters."""
    return next(iter(lines(response)), (0, 0))


def _ending(response: str) -> Span:
    """The end of the last line: its last eight tokens."""
    start, end = (lines(response) or [(0, 0)])[-1]
    tokens = list(re.finditer(r"\S+", response[start:end]))
    return (start + tokens[max(0, len(tokens) - 8)].start(), end) if tokens else (start, end)


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
        return {"phrase": _named(self.phrase)}

    def problems(self, response: str) -> list[Problem]:
        if response.lstrip().startswith(self.phrase):
            return []
        span = _beginning(response)
        begins = excerpt(response, span)
        sayings = [
            f'The response begins with {begins}, but it should begin with {_named(self.phrase)}',
            f'The first words should be "{self.phrase}" and are {begins}.',
        ]
        if self.phrase in response:
            line = line_number(response, response.index(self.phrase))
            sayings = [
                f'"{self.phrase}" should be the very beginning; it comes only in line {line:,}, after {begins}.'
            ]
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
        return {"phrase": _named(self.phrase)}

    def problems(self, response: str) -> list[Problem]:
        if response.rstrip().endswith(self.phrase):
            return []
        at = response.rfind(self.phrase)
        if at >= 0:
            rest = following(response, at + len(self.phrase))
            goes_on = excerpt(response, rest)
            return self.found(response, [f'Nothing should follow "{self.phrase}", but {goes_on} does.'], [rest])
        span = _ending(response)
        ends = excerpt(response, span)
        sayings = [
            f'The response ends with {ends}, but its last words should be {_named(self.phrase)}',
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
        begins, ends = _beginning(response), _ending(response)
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


@dataclass(frozen=True)
class Postscript(Check):
    """A line begins with `marker`, and something follows it there."""

    marker: str = "P.S."

    kind = "postscript"
    forms = ("prose", "letter")
    aspects = frozenset({"ending", "case", "sentences"})
    wordings = (
        "At the end, add a postscript that starts with {marker}",
        "At the end, add a line that begins with {marker}",
    )
    new_wordings = ("Close with a postscript on its own line, marked {marker}",)

    def __post_init__(self) -> None:
        require(bool(self.marker.strip()), f"{self.kind}.marker", self.marker, "must not be blank")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Postscript:
        return cls(rng.choice(("P.S.", "P.S.", "P.P.S.")))

    def values(self) -> dict[str, str]:
        return {"marker": _named(self.marker)}

    def problems(self, response: str) -> list[Problem]:
        marked = [span for span in lines(response) if cut(response, span).startswith(self.marker)]
        if any(any(map(str.isalnum, cut(response, span)[len(self.marker) :])) for span in marked):
            return []
        if marked:
            saying = f"The postscript {placed(response, marked[-1])} says nothing after the mark."
            return self.found(response, [saying], marked[-1:])
        if self.marker in response:
            line = line_number(response, response.index(self.marker))
            return self.found(
                response, [f'"{self.marker}" stands inside line {line:,}; the postscript needs a line of its own.']
            )
        ends = excerpt(response, _ending(response))
        sayings = [
            f'The postscript is missing: no line begins with "{self.marker}", and the response ends with {ends}.',
            f'After {ends} a line that begins with "{self.marker}" should follow, but the response stops.',
        ]
        return self.found(response, sayings)


@dataclass(frozen=True)
class TitleInAngles(Check):
    """The first line is a title in double angular brackets, <<so>>."""

    kind = "title_in_angles"
    forms = ("prose",)
    aspects = frozenset({"opening", "sentences", "layout"})
    wordings = (
        "Begin with a title in double angular brackets, such as <<my title>>.",
        "Put a title in double angular brackets, <<like this>>, on the first line.",
    )
    new_wordings = ("The first line should be a title between << and >>.",)

    def problems(self, response: str) -> list[Problem]:
        span = _beginning(response)
        first = cut(response, span)
        if re.fullmatch(r"<<[^<>]*\w[^<>]*>>", first):
            return []
        quote = excerpt(response, span)
        elsewhere = re.search(r"<<[^<>\n]*\w[^<>\n]*>>", response)
        if elsewhere:
            title = excerpt(response, elsewhere.span())
            sayings = [f"The title {title} should be the first line and stand alone there, but the first line is {quote}."]
        else:
            sayings = [
                f"The first line should be a title in double angular brackets, but it is {quote}.",
                f"There is no title in double angular brackets; the response begins with {quote}.",
            ]
        return self.found(response, sayings, [span])


@dataclass(frozen=True)
class RepeatRequest(Check):
    """The response begins with `request`, word for word, and goes on after it."""

    request: str = MISSING

    kind = "repeat_request"
    forms = ("prose", "letter")
    aspects = frozenset(
        {"opening", "length", "vocabulary", "case", "letters", "layout", "sentences", "commas", "digits", "repetition"}
    )
    wordings = (
        "Before you answer, repeat the first sentence of this message word for word.",
        "First repeat the first sentence of this message without any change, then answer it.",
    )
    new_wordings = ("Copy the first sentence of this message at the start, then give your answer.",)

    def __post_init__(self) -> None:
        require(bool(self.request.strip()), f"{self.kind}.request", self.request, "must not be blank")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> RepeatRequest:
        return cls(task.text)

    def problems(self, response: str) -> list[Problem]:
        text = response.lstrip().lstrip("\"“*'")
        request = self.request.strip()
        named = excerpt(request, (0, len(request)))
        if text.startswith(request):
            if any(map(str.isalnum, text[len(request) :])):
                return []
            sayings = [f"The response repeats {named} as asked, but then gives no answer."]
            return self.found(response, sayings)
        span = _beginning(response)
        begins = excerpt(response, span)
        sayings = [
            f"The response should first repeat {named} word for word, but it begins with {begins}.",
            f"It begins with {begins}, where the request, {named}, should have been repeated first.",
        ]
        return self.found(response, sayings, [span])


@dataclass(frozen=True)
class TwoResponses(Check):
    """Two different answers, parted by a line of six asterisks."""

    kind = "two_responses"
    forms = ("prose", "short")
    aspects = frozenset({"layout", "sentences", "opening", "ending", "markup", "length"})
    wordings = (
        "Give two different answers, separated by a line with six asterisks: ******",
        "Answer twice, in two different ways, with the line ****** between the answers.",
    )
    new_wordings = ("Offer two answers that differ and put ****** on a line between them.",)

    def problems(self, response: str) -> list[Problem]:
        marks = [span for span in lines(response) if cut(response, span) == "******"]
        if not marks:
            sayings = [
                "The response should give two answers with a line ****** between them, but there is no such line.",
                f"No line ****** parts the response into two answers; it begins with "
                f"{excerpt(response, _beginning(response))} and is only one.",
            ]
            return self.found(response, sayings[:1] if "******" in response else sayings)
        bounds = [0, *(end for _, end in marks)], [*(start for start, _ in marks), len(response)]
        answers = [response[a:b].strip() for a, b in zip(*bounds)]
        if len(answers) > 2:
            line = line_number(response, marks[1][0])
            return self.found(
                response,
                [f"Two answers were asked for, but line {line:,}, {excerpt(response, marks[1])}, begins another one."],
                marks[1:],
            )
        empty = next((place for place, answer in zip(("before", "after"), answers) if not answer), None)
        if empty:
            return self.found(response, [f"There is no answer {empty} the line ******, where two were asked for."])
        if " ".join(answers[0].split()).casefold() == " ".join(answers[1].split()).casefold():
            second = following(response, marks[0][1])
            saying = f"The second answer, {excerpt(response, second)}, is the same as the first."
            return self.found(response, [saying], [second])
        return []
