"""What a person is asked, and what counts as an answer: the same in a file and on a page."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they can make text read as another


@dataclass(frozen=True)
class Verdict:
    """One of the answers to choose from.

    Attributes:
        label: of its button.
        needs_words: it says nothing without some.
    """

    label: str
    needs_words: bool = False


@dataclass(frozen=True)
class Form:
    """What is asked of every question.

    Attributes:
        title: the question in a few words.
        texts: headings of what is to be judged, in order.
        verdicts: what may be answered, by the word that stands for it.
        words: what the words beside a verdict are called.
    """

    title: str
    texts: tuple[str, ...]
    verdicts: Mapping[str, Verdict]
    words: str = "judgment"

    def problem(self, verdict: str, words: str) -> str | None:
        """Why this is no answer, or None where it is one."""
        if verdict not in self.verdicts:
            return f"{verdict!r} is no verdict; write one of {', '.join(self.verdicts)}"
        if self.verdicts[verdict].needs_words and not words.strip():
            return f"{verdict} needs a {self.words} in words: say what is wrong"
        return None


JUDGE = Form(
    "Is the response perfect?",
    ("response",),
    {"perfect": Verdict("Perfect"), "flawed": Verdict("Submit judgment", needs_words=True)},
)
COMPARE = Form(
    "Which response is better?",
    ("response A", "response B"),
    {"A": Verdict("A is better"), "B": Verdict("B is better"), "tie": Verdict("Neither")},
    words="reason",
)


@dataclass(frozen=True)
class Question:
    """One thing to judge: an instruction and, in the order of `Form.texts`, what answers it."""

    id: str
    instruction: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a person says of the question of that id; `words` may be empty where the verdict needs none."""

    id: str
    verdict: str
    words: str = ""


def readable(text: str) -> str:
    """The text with an escape for each character that shows nothing or reorders the others.

    Line breaks, tabs and the joiners that scripts and emoji need stay as they are.
    """
    return "".join(_escape(c) if _is_hidden(c) else c for c in text.replace("\r\n", "\n"))


def _is_hidden(character: str) -> bool:
    if character in "\n\t":
        return False
    return character in _BIDI or unicodedata.category(character) in ("Cc", "Cs")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
