"""Tokens as text that a person can read: what each one adds, with everything invisible made visible."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from cut_dist.data.templates import Tokenizer

HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"
_CONTEXT = 4  # tokens decoded before the first one, so that it keeps the space it begins with


def token_texts(tokenizer: Tokenizer, ids: Sequence[int], before: Sequence[int] = ()) -> list[str]:
    """The text that each token adds to those in front of it.

    A token that ends inside a character adds "", and the one that completes the character adds all of it. Joined, the
    texts are what `ids` decode to. Only a short window is decoded at a time, so this is linear in the tokens.

    Args:
        tokenizer: a Hugging Face tokenizer.
        ids: the tokens.
        before: the tokens in front of them.
    """
    tokens = [*before[-_CONTEXT:], *ids]
    first = len(tokens) - len(ids)
    start, read, texts = 0, first, []
    for end in range(first + 1, len(tokens) + 1):
        text = _decode(tokenizer, tokens[start:end])[len(_decode(tokenizer, tokens[start:read])) :]
        if text.endswith(HALF_CHARACTER) and end < len(tokens):
            texts.append("")
        else:
            texts.append(text)
            start, read = read, end
    return texts


def split_control(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[str, bool]]:
    """Decode a prompt as stretches of text, each with whether it is a control token.

    Text that merely looks like a control token is not one, and only this tells them apart.
    """
    control = set(tokenizer.all_special_ids) | {
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    runs = []
    for is_control, run in groupby(ids, key=lambda i: i in control):
        run = list(run)
        runs += [(_decode(tokenizer, [i]), True) for i in run] if is_control else [(_decode(tokenizer, run), False)]
    return runs


def printable(text: str) -> str:
    """The text with its line breaks, and an escape for each other character that does not print.

    Data is untrusted: a terminal must not obey an escape sequence in it, nor a reader be misled by a hidden character.
    """
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def visible(text: str) -> str:
    """As `printable`, with a sign for each line break and tab, and for spaces that stand alone in number."""
    if not text:
        return HALF_CHARACTER
    if len(text) > 1 and not text.strip(" "):
        return "␣" * len(text)
    return printable(text.replace("\t", "⇥")).replace("\n", "⏎\n")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
