"""Parts that the response should have: a postscript, a title, the repeated request, two answers."""

from __future__ import annotations

import random
import re
from dataclasses import MISSING, dataclass

from cut_dist.config_check import require
from cut_dist.verifiable.base import Check, Problem, Task, named
from cut_dist.verifiable.text import beginning, cut, ending, excerpt, following, line_number, lines, placed

_TITLE = re.compile(r"<<([^<>\n]{1,500})>>")


def _is_title(match: re.Match | None) -> bool:
    return match is not None and any(map(str.isalnum, match[1]))


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
        return {"marker": named(self.marker)}

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
        ends = excerpt(response, ending(response))
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
        span = beginning(response)
        first = cut(response, span)
        if _is_title(_TITLE.fullmatch(first)):
            return []
        quote = excerpt(response, span)
        elsewhere = next(filter(_is_title, _TITLE.finditer(response)), None)
        if elsewhere:
            title = excerpt(response, elsewhere.span())
            sayings = [f"The title {title} should stand alone in the first line, but that line is {quote}."]
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
        span = beginning(response)
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
                f"No line ****** parts the response, which begins {excerpt(response, beginning(response))}, into two.",
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
