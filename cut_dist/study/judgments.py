"""Judgments of the laboratory: varied English that names the mistakes of an answer, well or badly."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from cut_dist.study.world import DIGITS, Symbols

Claim = tuple[int, str, str]  # place, symbol there, the symbol that is said to be right
Quality = Literal["precise", "position", "vague", "wrong", "random"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
MIXED: dict[Quality, float] = {"precise": 0.6, "position": 0.2, "vague": 0.2}  # what judgments are like unless one says

ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth",
)  # fmt: skip
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen",
)  # fmt: skip

PRECISE = (
    "the {place} symbol should be {right} not {wrong} .",
    "{wrong} at the {place} place is wrong , it should be {right} .",
    "you wrote {wrong} as the {place} symbol but {right} belongs there .",
    "there is a mistake at the {place} place : {wrong} instead of {right} .",
    "the {place} symbol is {wrong} , the right one is {right} .",
)
POSITION = (
    "the {place} symbol is wrong .",
    "there is an error at the {place} place .",
    "please check the {place} symbol , it is not right .",
)
VAGUE = (
    "this is not right .",
    "there is a mistake in the answer .",
    "something is wrong here .",
    "the answer is wrong .",
)
LENGTH = (
    "the answer should have {right} symbols not {wrong} .",
    "there are {wrong} symbols , it should be {right} .",
)
PRAISE = (
    "no mistakes here .",
    "this is right .",
    "all symbols are right .",
    "well done , the answer is right .",
)

UNREAD_PRAISE = "no mistake in the answer ."  # in known words, and in no row of the corpus
_NAMED = 4  # mistakes that one judgment names at most


def judge(rng: random.Random, response: Symbols, answer: Symbols, quality: Quality = "precise") -> str | None:
    """A judgment of `response`, None where it is right.

    `precise` names place, wrong and right symbol of the first four mistakes; `position` only where; `vague` only that
    there is one. `wrong` speaks as precisely of places and symbols that are not the mistakes. Of an answer of another
    length all but `vague` name the length, `wrong` too. `random`: the caller hands judgments of that
    quality around among responses, so here it is as precise as `precise`.
    """
    if response == answer:
        return None
    if quality == "vague":
        return rng.choice(VAGUE)
    if len(response) != len(answer):
        said, right = NUMBERS[min(len(response), 16)], NUMBERS[len(answer)]
        return rng.choice(LENGTH).format(right=right, wrong=said) if said != right else rng.choice(VAGUE)
    return worded(rng, claims(rng, response, answer, quality), POSITION if quality == "position" else PRECISE)


def claims(rng: random.Random, response: Symbols, answer: Symbols, quality: Quality) -> list[Claim]:
    """The mistakes that one judgment names at most, of a response as long as the answer; `wrong`: what is none."""
    mistakes = [(i, a, b) for i, (a, b) in enumerate(zip(response, answer, strict=True)) if a != b][:_NAMED]
    return _other_mistakes(rng, response, answer, len(mistakes)) if quality == "wrong" else mistakes


def worded(rng: random.Random, claims: Sequence[Claim], forms: Sequence[str] = PRECISE) -> str:
    """A judgment that makes the claims, a sentence each."""
    return " ".join(
        rng.choice(forms).format(place=ORDINALS[place], wrong=wrong, right=right) for place, wrong, right in claims
    )


def draw_quality(rng: random.Random, shares: Mapping[Quality, float] = MIXED) -> Quality:
    return rng.choices(list(shares), list(shares.values()))[0]


def praise(rng: random.Random) -> str:
    return rng.choice(PRAISE)


def _other_mistakes(rng: random.Random, response: Symbols, answer: Symbols, count: int) -> list[Claim]:
    """Right places, `count` of them where there are as many, each said to be wrong.

    Where no place is right it is the first one, and what is said of it may be true: none of the study's samples.
    """
    right = [i for i, (a, b) in enumerate(zip(response, answer)) if a == b]
    chosen = sorted(rng.sample(right, min(count, len(right)))) or [0]
    return [(i, response[i], rng.choice([d for d in DIGITS if d != response[i]])) for i in chosen]
