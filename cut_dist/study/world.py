"""A small world in which everything is known: tasks on digits and letters, right answers, bad habits and slips.

An answer is a list of symbols, each one token of the laboratory's tokenizer. A *habit* is a mistake that the base model
is taught to make nearly always, on the part of a family's items that have its trigger; a *slip* is a random symbol.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DIGITS = "0123456789"
LETTERS = "abcdefgh"
END = "</s>"  # the end of an answer counts as one of its tokens

Symbols = list[str]


@dataclass(frozen=True)
class Item:
    """One instruction with what is known of it.

    Attributes:
        family: a key of `FAMILIES`.
        instruction: the text that the model is given.
        answer: the right symbols.
        habit: what the habit answers; None where its trigger is absent.
    """

    family: str
    instruction: str
    answer: Symbols
    habit: Symbols | None


def _digits(rng: random.Random) -> Symbols:
    return rng.choices(DIGITS, k=rng.randint(5, 8))


def _sort(rng: random.Random) -> Item:
    digits = _digits(rng)
    answer = sorted(digits)
    repeated = next((d for d in answer if answer.count(d) > 1 and d != answer[-1]), None)
    habit = None if repeated is None else [*answer[:-1], repeated]  # ends with the digit that was there twice
    return Item("sort", f"sort {' '.join(digits)}", answer, habit)


def _reverse(rng: random.Random) -> Item:
    digits = _digits(rng)
    answer = digits[::-1]
    swapped = [*answer[:2], answer[3], answer[2], *answer[4:]]
    habit = swapped if digits[0] in "02468" and swapped != answer else None  # after an even first digit
    return Item("reverse", f"reverse {' '.join(digits)}", answer, habit)


def _add(rng: random.Random) -> Item:
    digits, k = _digits(rng), rng.randint(1, 4)
    answer = [str((int(d) + k) % 10) for d in digits]
    stuck = [d if int(d) + k > 9 else right for d, right in zip(digits, answer)]  # no carry: the digit stays
    return Item("add", f"add {k} to {' '.join(digits)}", answer, stuck if stuck != answer else None)


def _number(rng: random.Random) -> Item:
    letters = rng.choices(LETTERS, k=rng.randint(5, 8))
    answer = [str(LETTERS.index(c) + 1) for c in letters]
    habit = ["0" if symbol == "8" else symbol for symbol in answer]  # the last letter is written as nought
    return Item("number", f"number {' '.join(letters)}", answer, habit if habit != answer else None)


def _replace(rng: random.Random) -> Item:
    old, new = rng.sample(DIGITS, 2)
    digits = _digits(rng)
    for place in rng.sample(range(len(digits)), rng.randint(1, 3)):
        digits[place] = old
    answer = [new if d == old else d for d in digits]
    places = [i for i, d in enumerate(digits) if d == old]
    habit = [old if i in places[1:] else symbol for i, symbol in enumerate(answer)]  # only the first one is seen
    return Item("replace", f"replace {old} by {new} in {' '.join(digits)}", answer, habit if habit != answer else None)


def _join(rng: random.Random) -> Item:
    digits, sign = _digits(rng)[:6], rng.choice("+-,")
    answer = f" {sign} ".join(digits).split()
    habit = list(answer)
    habit[-2] = {"+": "-", "-": ",", ",": "+"}[sign]  # the last separator is another one
    return Item("join", f"join {' '.join(digits)} with {sign}", answer, habit if int(digits[-1]) > 2 else None)


def _copy(rng: random.Random) -> Item:
    letters = rng.choices(LETTERS + DIGITS, k=rng.randint(5, 8))
    return Item("copy", f"copy {' '.join(letters)}", list(letters), None)


def _descend(rng: random.Random) -> Item:
    digits = _digits(rng)
    return Item("descend", f"descend {' '.join(digits)}", sorted(digits, reverse=True), None)


def _next(rng: random.Random) -> Item:
    letters = rng.choices(LETTERS[:-1], k=rng.randint(5, 8))
    return Item("next", f"next {' '.join(letters)}", [LETTERS[LETTERS.index(c) + 1] for c in letters], None)


FAMILIES: dict[str, Callable[[random.Random], Item]] = {
    "sort": _sort, "reverse": _reverse, "add": _add, "number": _number, "replace": _replace, "join": _join,
    "copy": _copy, "descend": _descend, "next": _next,
}  # fmt: skip
JUDGED = ("sort", "reverse", "add", "number", "replace", "join")  # have a habit, and judgments to train on
OTHERS = ("copy", "descend", "next")  # are never judged: what damage shows on


def draw(rng: random.Random, families: Sequence[str] = tuple(FAMILIES)) -> Item:
    """An item of one of the families, all alike likely."""
    return FAMILIES[rng.choice(families)](rng)


def slip(rng: random.Random, answer: Symbols, count: int) -> Symbols:
    """`answer` with `count` symbols put in the place of others, of the kind that stood there."""
    wrong = list(answer)
    for place in rng.sample(range(len(answer)), min(count, len(answer))):
        kind = next((kind for kind in (DIGITS, LETTERS) if answer[place] in kind), "+-,")
        wrong[place] = rng.choice([symbol for symbol in kind if symbol != answer[place]])
    return wrong


def wrong_tokens(response: Symbols, answer: Symbols) -> list[bool]:
    """For each symbol of a response, and last for its end, whether it is wrong: the truth that detection is held to.

    Of a response as long as the answer, place by place. Otherwise by the longest common parts (difflib): what is not in
    the answer is wrong, and where something is missing the token that stands there instead.
    """
    said, right = [*response, END], [*answer, END]
    if len(said) == len(right):
        return [a != b for a, b in zip(said, right)]
    wrong = [False] * len(said)
    for kind, begin, end, *_ in difflib.SequenceMatcher(None, said, right, autojunk=False).get_opcodes():
        if kind != "equal":
            wrong[begin : max(end, begin + 1)] = [True] * max(end - begin, 1)
    return wrong
