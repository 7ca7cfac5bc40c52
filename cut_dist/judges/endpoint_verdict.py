"""From a judge's reply to a verdict: read strictly, never guessed, and never taken from the response's own words."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from cut_dist.endpoint.protocol import Reply

Verdict = tuple[bool, str | None]  # satisfactory, what is wrong

_BEGINS_PERFECT = re.compile(r"\W*((the|this|your) (response|answer|output) is )?perfect\b", re.IGNORECASE)
_REFUSAL = re.compile(
    r"(i['’]?m (very )?sorry|i am (very )?sorry|sorry, |my apologies|i apologi[sz]e|as an ai\b|"
    r"i (can ?not|can['’]t|could not|won['’]t|will not|am unable|am not able)\b|i['’]m (unable|not able)\b)",
    re.IGNORECASE,
)
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL)


class Unreadable(ValueError):
    """A reply without a verdict that can be relied on; the message says why, also to the judge who is asked again."""


def read_paper(reply: Reply, response: str, mark: str, *, marked: bool) -> Verdict:
    """The verdict of a reply in words: satisfactory if it begins with "Perfect." or is that one word (paper, figure 8).

    Args:
        reply: the judge's.
        response: what was judged. A reply that only repeats it is no verdict, nor is a bare "Perfect." where the
            response says that word.
        mark: of this request.
        marked: the judge was asked to write the mark on the first line.

    Raises:
        Unreadable: the reply is empty, cut off or a refusal, or it can be read both ways.
    """
    words = _words(reply)
    if marked:
        first, _, words = words.partition("\n")
        words = words.strip()
        if first.strip() != mark or not words:
            raise Unreadable("it does not begin with the mark and then a verdict")
    if _REFUSAL.match(words):
        raise Unreadable("it is no evaluation but a refusal")
    if words.startswith("Perfect.") or re.sub(r"\W", "", words).lower() == "perfect":
        if not marked and re.search(r"\bperfect\b", _fold(response)):
            raise Unreadable("the response itself says 'perfect', so it may be its words and not your verdict")
        return True, None
    if _BEGINS_PERFECT.match(words):
        raise Unreadable("it can be read both ways: it begins with praise but is not 'Perfect.'")
    if len(words.split()) == 1 and re.search("[A-Za-z]", words):  # also "Perfect." in look-alike letters
        raise Unreadable("one word says not what is wrong")
    if _fold(words) in _fold(response):
        raise Unreadable("it only repeats the response")
    return False, _without_mark(words, mark)


def read_structured(reply: Reply, mark: str) -> Verdict:
    """The verdict of a reply in JSON, which must be the whole reply (or one fenced block), with the right mark.

    Raises:
        Unreadable: it is no such JSON, or the mark is not that of this request: an answer to something else.
    """
    words = _words(reply)
    fenced = _FENCED.fullmatch(words)
    try:
        content = json.loads(fenced[1] if fenced else words, object_pairs_hook=_once)
    except ValueError:
        raise Unreadable("it is not one JSON object") from None
    if not isinstance(content, dict) or set(content) != {"mark", "satisfactory", "judgment"}:
        raise Unreadable("it must hold mark, satisfactory and judgment, and nothing else")
    if content["mark"] != mark:
        raise Unreadable(f"its mark is not {mark}")
    satisfactory, judgment = content["satisfactory"], content["judgment"]
    if not isinstance(satisfactory, bool) or not isinstance(judgment, str):
        raise Unreadable("satisfactory must be true or false, and judgment a text")
    if satisfactory:
        return True, None
    if not judgment.strip() or _BEGINS_PERFECT.match(judgment):
        raise Unreadable("satisfactory is false, but judgment names no mistake")
    return False, _without_mark(judgment.strip(), mark)


def _words(reply: Reply) -> str:
    """The text of a reply that is whole."""
    words = reply.text.strip()
    if reply.finish_reason == "length":
        raise Unreadable("it was cut off at the length limit: be shorter")
    if reply.finish_reason in ("content_filter", "refusal"):
        raise Unreadable("it is no evaluation but a refusal")
    if not words:
        raise Unreadable("it is empty")
    if any(unicodedata.category(character) in ("Cc", "Cs") and not character.isspace() for character in words):
        raise Unreadable("it holds control characters")
    return words


def _without_mark(judgment: str, mark: str) -> str:
    """The judgment, which is trained on; the fence has no place in it."""
    if mark in judgment:
        raise Unreadable(f"it speaks of {mark}, which is no part of the response")
    return judgment


def _fold(text: str) -> str:
    """Without what makes the same words look different: case, width, invisible characters, runs of spaces."""
    visible = (ch for ch in unicodedata.normalize("NFKC", text) if unicodedata.category(ch) != "Cf")
    return " ".join("".join(visible).casefold().split())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal keys Python would take the second without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key comes twice")
    return content
