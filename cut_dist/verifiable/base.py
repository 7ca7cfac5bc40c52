"""What a check is, what it finds, and how it picks its words."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from cut_dist.verifiable.text import Span

Choice = TypeVar("Choice")
Relation = Literal["at least", "at most", "exactly"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a response.

    Attributes:
        kind: the kind of check that found it ("empty" for a response without text).
        words: one or two sentences: what is wrong and where, in the response's own words, and what was wanted.
        spans: (start, end) in characters of the response, of everything that offends, in order; the first one
            is quoted in `words` (`text.excerpt`). Empty where something is missing and no part is to blame.
    """

    kind: str
    words: str
    spans: tuple[Span, ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """What an instruction asks for before any check is added.

    Attributes:
        form: what kind of text answers it: one of `FORMS`.
        text: one sentence; empty for form "answer", where the check's own sentence is the whole task.
        words: lowercase words that belong to the topic.
        options: of form "choice": the possible answers.
        answer: of form "choice": the right one.
        keys: of form "record": names of the fields.
    """

    form: str
    text: str
    words: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    answer: str = ""
    keys: tuple[str, ...] = ()


# Aspects of a check that decides what the whole text is.
WHOLE_TEXT = frozenset(
    [
        "opening", "ending", "layout", "sentences", "case", "commas", "markup", "length", "vocabulary", "letters",
        "digits",
    ]
)  # fmt: skip
FORMS = ("prose", "letter", "list", "points", "short", "record", "choice", "colour", "answer")


class Check:
    """One verifiable demand: a kind with its parameters, which are the fields of the dataclass.

    Class attributes:
        kind: the name that files use.
        forms: forms of tasks that the generator adds it to.
        aspects: what it determines; two checks that share one are never generated together.
        wordings: sentences for the instruction, with the parameters in braces.
        new_wordings: more of them, which only the held-out split uses.
    """

    kind: ClassVar[str]
    forms: ClassVar[tuple[str, ...]]
    aspects: ClassVar[frozenset[str]]
    wordings: ClassVar[tuple[str, ...]]
    new_wordings: ClassVar[tuple[str, ...]]

    @classmethod
    def draw(cls, rng: random.Random, task: Task) -> Check:
        """A check of this kind for an instruction about `task`."""
        return cls()

    def problems(self, response: str) -> list[Problem]:
        """What the response does wrong; empty where it does as told. Never raises, whatever the text."""
        raise NotImplementedError

    def params(self) -> dict[str, Any]:
        """The parameters as JSON holds them, without those that are null."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def values(self) -> dict[str, Any]:
        """What the braces of the wordings stand for; the parameters, if a kind doesn't say otherwise."""
        return self.params()

    def sentence(self, wording: str) -> str:
        """A wording with the parameters put in."""
        return wording.format(**self.values())

    def found(self, response: str, sayings: Sequence[str], spans: Iterable[Span] = ()) -> list[Problem]:
        """One problem, worded by one of the sayings, which the response decides."""
        places = tuple((start, end) for start, end in spans if start < end)  # of an empty text there is no place
        return [Problem(self.kind, unstopped(pick(sayings, self.kind, response)), places)]


def pick(choices: Sequence[Choice], *keys: str) -> Choice:
    """One of the choices, decided by the keys alone: the same in every process and on every machine."""
    digest = hashlib.sha256("\0".join(keys).encode("utf-8", "surrogatepass")).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


def holds(number: int, relation: Relation, wanted: int) -> bool:
    """Whether `number` is at least, at most or exactly the number wanted."""
    return {"at least": number >= wanted, "at most": number <= wanted, "exactly": number == wanted}[relation]


def times(number: int) -> str:
    """How often, in words: once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def unstopped(sentence: str) -> str:
    """A sentence without its full stop where the quotation at its end has a mark of its own: `says "Yes."`."""
    return sentence[:-1] if sentence.endswith(('.".', '!".', '?".')) else sentence


def listed(items: Sequence[str], last: str = "and") -> str:
    """Items in quotation marks as a sentence lists them: "a", "b" and "c"."""
    quoted = [f'"{item}"' for item in items]
    return f" {last} ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def named(phrase: str) -> str:
    """A phrase in quotation marks as the end of a sentence."""
    return unstopped(f'"{phrase}".')
