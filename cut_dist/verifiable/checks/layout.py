"""How the response is laid out: lists, sections, marks of Markdown."""

from __future__ import annotations

import random
import re
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import Check, Problem, Task
from cut_dist.verifiable.text import Span, excerpt, line_number, lines, placed
from cut_dist.wording import counted

_LAYOUT = frozenset({"layout", "sentences"})
_NUMBERED = re.compile(r"(\d{1,4})[.)][ \t]+\S")
_BULLET = re.compile(r"[-*+•][ \t]+\S")
_HIGHLIGHT = re.compile(r"(?<![*\w])(\*{1,2})(?=[^\s*])[^*\n]{0,500}(?<=[^\s*])\1(?![*\w])")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]{0,100}\w[^\[\]\n]{0,100}\]")
_MARKDOWN = (
    (re.compile(r"#{1,6}[ \t]+\S"), "is a Markdown heading"),
    (_BULLET, "is a bullet point"),
    (re.compile(r"```"), "opens or closes a code block"),
)
_INLINE_MARKDOWN = re.compile(r"(?<![*\w])\*{1,3}(?=[^\s*])[^*\n]{0,500}(?<=[^\s*])\*{1,3}(?![*\w])|`[^`\n]{1,500}`")


class _ItemCount(Check):
    """A list of exactly `count` items, one a line."""

    forms = ("list", "points")
    aspects = _LAYOUT
    noun: ClassVar[str]
    looks: ClassVar[str]

    def _items(self, response: str) -> list[Span]:
        raise NotImplementedError

    def problems(self, response: str) -> list[Problem]:
        found, count = self._items(response), self.count
        if len(found) == count:
            return []
        have = counted(len(found), self.noun) if found else f"no {self.noun}"
        if len(found) > count:
            surplus = found[count:]
            sayings = (
                f"The response has {have} instead of {count:,}; {excerpt(response, surplus[0])} in line "
                f"{line_number(response, surplus[0][0]):,} is one too many.",
                f"There should be exactly {counted(count, self.noun)}, but the list goes on with "
                f"{excerpt(response, surplus[0])} to {have}.",
            )
            return self.found(response, sayings, surplus)
        if not found:
            start = excerpt(response, (lines(response) or [(0, 0)])[0])
            sayings = (
                f"The response, which begins {start}, has {have}; {count:,} {self.looks} were asked for.",
                f"Exactly {counted(count, self.noun)} ({self.looks}) should be given, but the response has none.",
            )
        else:
            sayings = (
                f"The response has only {have} where {count:,} were asked for; the last one is "
                f"{excerpt(response, found[-1])}.",
                f"After {excerpt(response, found[-1])} the list stops with {have}; exactly {count:,} were wanted.",
            )
        return self.found(response, sayings)

    def values(self) -> dict[str, Any]:
        return {"items": counted(self.count, self.noun), "count": self.count}

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Check:
        return cls(rng.randint(2, 6))


@dataclass(frozen=True)
class BulletCount(_ItemCount):
    """Exactly `count` lines that begin with -, *, + or • and a space."""

    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "bullet_count"
    noun, looks = "bullet point", 'lines that begin with "- "'
    wordings = ("Use exactly {items}.", "Give your answer as {items}.", "Answer in {items}, each starting with a dash.")
    new_wordings = ("Make it a list of {items}.",)

    def _items(self, response: str) -> list[Span]:
        return [span for span in lines(response) if _BULLET.match(response, *span)]


@dataclass(frozen=True)
class NumberedList(_ItemCount):
    """Exactly `count` lines that begin with a number and a point or bracket, numbered 1, 2, 3, ..."""

    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "numbered_list"
    aspects = _LAYOUT | {"digits"}
    noun, looks = "numbered item", 'lines that begin "1.", "2." and so on'
    wordings = ("Give a numbered list of {count} items.", "Number your points from 1 to {count}, one on each line.")
    new_wordings = ("Answer with a list of {count} items, numbered from 1.",)

    def _items(self, response: str) -> list[Span]:
        return [span for span in lines(response) if _NUMBERED.match(response, *span)]

    def problems(self, response: str) -> list[Problem]:
        if problems := super().problems(response):
            return problems
        for wanted, span in enumerate(self._items(response), start=1):
            number = _NUMBERED.match(response, *span)[1]
            if int(number) != wanted:
                saying = f"The item {excerpt(response, span)} is numbered {number} where {wanted:,} should come."
                return self.found(response, [saying], [span])
        return []


@dataclass(frozen=True)
class OnePerLine(_ItemCount):
    """Exactly `count` lines that are not blank, none of them with a bullet or number."""

    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "one_per_line"
    forms = ("list",)
    aspects = _LAYOUT | {"opening", "ending"}
    noun, looks = "line", "lines of one item each"
    wordings = (
        "Write exactly {count} items, one on each line, without bullets or numbers.",
        "Put {count} items on {count} lines and add nothing else: no bullets, no numbers.",
    )
    new_wordings = ("Answer with {count} lines, each holding one item, unnumbered and without bullets.",)

    def _items(self, response: str) -> list[Span]:
        return lines(response)

    def problems(self, response: str) -> list[Problem]:
        marked = [s for s in lines(response) if _BULLET.match(response, *s) or _NUMBERED.match(response, *s)]
        if not marked:
            return super().problems(response)
        line, first = line_number(response, marked[0][0]), excerpt(response, marked[0])
        sayings = (
            f"The items should stand on their lines without bullets or numbers, but line {line:,} is {first}.",
            f"Line {line:,}, {first}, begins with a bullet or number, which the instruction rules out.",
        )
        return self.found(response, sayings, marked)


@dataclass(frozen=True)
class Sections(Check):
    """The headers `word` 1 to `word` `count` each begin a line, in order, with text after each."""

    word: str = MISSING
    count: int = ranged(MISSING, at_least=1, at_most=100)

    kind = "sections"
    forms = ("prose",)
    aspects = frozenset({"layout", "sentences", "case", "digits", "opening"})
    wordings = (
        'Divide your answer into {count} sections, headed "{word} 1" to "{word} {count}".',
        'Write {count} sections and begin them with the lines "{word} 1" to "{word} {count}".',
    )
    new_wordings = ('Use {count} parts with the headers "{word} 1" to "{word} {count}".',)

    def __post_init__(self) -> None:
        require(bool(re.search(r"\w", self.word)), f"{self.kind}.word", self.word, "must be a word")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Sections:
        return cls(rng.choice(("Part", "Section", "Step", "Chapter")), rng.randint(2, 4))

    def problems(self, response: str) -> list[Problem]:
        header = re.compile(rf"[#*_ \t]*{re.escape(self.word)}[ \t]+(\d{{1,9}})(?!\w)")
        found = [(span, header.match(response, *span)) for span in lines(response)]
        found = [(span, match) for span, match in found if match]
        for wanted, (span, match) in enumerate(found, start=1):
            if wanted > self.count:
                saying = (
                    f"Exactly {counted(self.count, 'section')} should be there, but {excerpt(response, span)} begins "
                    "another one."
                )
                return self.found(response, [saying], [span for span, _ in found[self.count :]])
            if int(match[1]) != wanted:
                saying = f'The header {excerpt(response, span)} stands where "{self.word} {wanted}" should come.'
                return self.found(response, [saying], [span])
            end = found[wanted][0][0] if wanted < len(found) else len(response)
            if not any(map(str.isalnum, response[match.end() : end])):
                saying = f"The section {excerpt(response, span)} has a header but no text."
                return self.found(response, [saying], [span])
        return self._missing(response, len(found)) if len(found) < self.count else []

    def _missing(self, response: str, found: int) -> list[Problem]:
        headers = [f'"{self.word} {number}"' for number in range(found + 1, self.count + 1)]
        names = headers[0] if len(headers) == 1 else f"{headers[0]} to {headers[-1]}"
        sayings = (
            f"{'The header' if len(headers) == 1 else 'The headers'} {names} {'is' if len(headers) == 1 else 'are'} "
            f"missing; {counted(self.count, 'section')} with such headers were asked for.",
            f"The response has {found if found else 'none'} of the {self.count:,} headers at the start of a line: "
            f"{names} should still come.",
        )
        return self.found(response, sayings)


@dataclass(frozen=True)
class Highlights(Check):
    """At least `count` pieces of text in *asterisks* or **two**, each within a line."""

    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "highlights"
    forms = ("prose", "letter")
    aspects = frozenset({"markup"})
    wordings = (
        "Highlight at least {parts} with asterisks, *like this*.",
        "Put at least {parts} of the text between asterisks, *such as this*.",
    )
    new_wordings = ("Mark at least {parts} of your answer with asterisks, *in this way*.",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Highlights:
        return cls(rng.randint(1, 3))

    def values(self) -> dict[str, Any]:
        return {"parts": counted(self.count, "part")}

    def problems(self, response: str) -> list[Problem]:
        found = [m.span() for m in _HIGHLIGHT.finditer(response)]
        if len(found) >= self.count:
            return []
        if not found:
            sayings = (
                f"Nothing is highlighted with asterisks; at least {counted(self.count, 'part')} should be, *like so*.",
                f"The response highlights no text in the form *text*, but at least {self.count:,} should be so marked.",
            )
        else:
            parts = f"{counted(len(found), 'part')} of the response {'is' if len(found) == 1 else 'are'}"
            sayings = (
                f"Only {parts} highlighted with asterisks, the last being {excerpt(response, found[-1])}; "
                f"at least {self.count:,} were asked for.",
            )
        return self.found(response, sayings)


@dataclass(frozen=True)
class Placeholders(Check):
    """At least `count` placeholders in square brackets, such as [name]."""

    count: int = ranged(MISSING, at_least=1, at_most=1_000)

    kind = "placeholders"
    forms = ("letter",)
    aspects = frozenset({"placeholders"})
    wordings = (
        "Include at least {count} placeholders in square brackets, such as [name].",
        "Leave at least {count} details open, written as placeholders like [date].",
    )
    new_wordings = ("Use {count} or more placeholders in square brackets, for example [place].",)

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Placeholders:
        return cls(rng.randint(2, 4))

    def problems(self, response: str) -> list[Problem]:
        found = [m.span() for m in _PLACEHOLDER.finditer(response)]
        if len(found) >= self.count:
            return []
        demand = f"at least {self.count:,} such as [name] {'was' if self.count == 1 else 'were'} asked for"
        if not found:
            sayings = (
                f"The response has no placeholder in square brackets; {demand}.",
                f"There is nothing in square brackets, though {demand}.",
            )
        else:
            sayings = (
                f"The response has only {counted(len(found), 'placeholder')}, the last one "
                f"{excerpt(response, found[-1])}; {demand}.",
            )
        return self.found(response, sayings)


@dataclass(frozen=True)
class PlainText(Check):
    """No Markdown: no headings, bullets, code blocks, `code`, *italics* or **bold** text."""

    kind = "plain_text"
    forms = ("prose", "letter")
    aspects = frozenset({"markup", "layout"})
    wordings = ("Use plain text without any Markdown.", "Do not use Markdown: no headings, no bold text, no bullets.")
    new_wordings = ("Write plain text only, with no Markdown marks.",)

    def problems(self, response: str) -> list[Problem]:
        found = [(m.span(), "is marked with Markdown") for m in _INLINE_MARKDOWN.finditer(response)]
        found += [(s, fault) for s in lines(response) for pattern, fault in _MARKDOWN if pattern.match(response, *s)]
        if not found:
            return []
        found.sort()
        span, fault = found[0]
        sayings = (
            f"The text should be plain, but {placed(response, span)} {fault}.",
            f"Markdown was ruled out, and still {placed(response, span)} {fault}.",
        )
        return self.found(response, sayings, [span for span, _ in found])
