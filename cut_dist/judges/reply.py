"""What an AI judge's reply says: a judgment in words, then "Yes." or "No." (the paper's figure 9)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_REPLY = re.compile(r"(?P<words>.*?)(?<!\w)(?P<decision>Yes|No)\.\s*", re.DOTALL)


class MalformedReply(ValueError):
    """A reply without a verdict that could be taken for one; its text says why."""


@dataclass(frozen=True)
class Verdict:
    """A reply taken apart.

    Attributes:
        satisfactory: True for "Yes.".
        words: what stands before the decision, without blanks around; with "No." never empty.
    """

    satisfactory: bool
    words: str


def parse_reply(text: str, finished: bool) -> Verdict:
    """Take a reply apart; the last "Yes." or "No." counts, and nothing may follow it.

    Args:
        text: the reply.
        finished: whether the judge ended it by itself.

    Raises:
        MalformedReply: it was cut off, has no decision at its end, or says "No." and not why.
    """
    if not finished:
        raise MalformedReply("cut off at judge.max_new_tokens")
    match = _REPLY.fullmatch(text)
    if match is None:
        raise MalformedReply('no "Yes." or "No." at the end')
    words, satisfactory = match["words"].strip(), match["decision"] == "Yes"
    if not satisfactory and not re.search(r"\w", words):
        raise MalformedReply('"No." without a judgment')
    # triplets take such words for praise, whatever the decision was
    praise = words.startswith("Perfect.") or re.sub(r"\W", "", words).lower() == "perfect"
    if not satisfactory and praise:
        raise MalformedReply('"No." after praise')
    return Verdict(satisfactory, words)
