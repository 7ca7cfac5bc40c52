"""Pieces that messages of every kind are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What the user of a command can mend: the message says what is wrong and the remedy, a traceback would hide it."""


_SYNONYMS = {"lambda": "lam", "learning_rate": "lr", "batch_size": "global_batch_size", "zero": "deepspeed"}


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None where nothing comes close."""
    choices = list(choices)
    if _SYNONYMS.get(word) in choices:
        return _SYNONYMS[word]
    by_folded = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None


def counted(number: int, noun: str) -> str:
    """A number with its noun in the right form: "1 step", "1,200 steps"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
