"""How the response is laid out: lists, sections, marks of Markdown."""

from __future__ import annotations

import random
import re
from dataclasses import MISSING, dataclass
from typing import Any

from cut_dist.config_check import ranged, require
from cut_dist.verifiable.base import Check, Problem, Task, listed
from cut_dist.verifiable.checks.lists import BULLET
from cut_dist.verifiable.text import excerpt, lines, placed
from cut_dist.wording import counted

_HIGHLIGHT = re.compile(r"(?<![*\w])(\*{1,2})(?=[^\s*])[^*\n]{0,500}(?<=[^\s*])\1(?![*\w])")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]{0,100}\w[^\[\]\n]{0,100}\]")
_MARKDOWN = (
    (re.compile(r"#{1,6}[ \t]+\S"), "is a Markdown heading"),
    (BULLET, "is a bullet point"),
    (re.compile(r"```"), "opens or closes a code block"),
)
_INLINE_MARKDOWN = re.compile(r"(?<![*\w])\*{1,3}(?=[^\s*])[^*\n]{0,500}(?<=[^\s*])\*{1,3}(?![*\w])|`[^`\n]{1,500}`")


@dataclass(frozen=True)
class Sections(Check):
    """The headers `word` 1 to `word` `count` each begin a line, in order, with text after each."""

    word: str = MISSING
    count: int = ranged(MISSING, at_least=1, at_most=100)

    kind = "sections"
    forms = ("prose",)
    aspects = frozenset({"layout", "sentences", "case", "digits", "opening"})
    wordings = (
        "Divide your answer into {count} sections, headed {headers}.",
        "Write {count} sections and begin them with the lines {headers}.",
    )
    new_wordings = ("Use {count} parts with the headers {headers}.",)

    def __post_init__(self) -> None:
        require(bool(re.search(r"\w", self.word)), f"{self.kind}.word", self.word, "must be a word")

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Sections:
        return cls(rng.choice(("Part", "Section", "Step", "Chapter")), rng.randint(2, 4))

    def values(self) -> dict[str, Any]:
        return {"count": self.count, "headers": self._headers(1)}

    def _headers(self, first: int) -> str:
        names = [f"{self.word} {number}" for number in range(first, self.count + 1)]
        return listed(names) if len(names) < 5 else f'"{names[0]}" to "{names[-1]}"'

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
        names, one = self._headers(found + 1), self.count - found == 1
        sayings = (
            f"{'The header' if one else 'The headers'} {names} {'is' if one else 'are'} missing; "
            f"the response should have {counted(self.count, 'section')} with such headers.",
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
                f"No placeholder in square brackets can be found, though {demand}.",
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
