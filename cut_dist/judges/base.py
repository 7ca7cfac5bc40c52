"""What every judge is given and gives: a conversation with its metadata in, a judgment and a verdict out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class JudgeRequest:
    """One response to judge.

    Attributes:
        id: the response's id, unique among the requests.
        messages: `{"role", "content"}` each; the last one is the assistant's, the response to judge.
        metadata: what is known of the instruction beside its words, such as the checks of a verifiable one.
    """

    id: str
    messages: Sequence[Mapping[str, str]]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def instruction(self) -> str:
        """What the response answers: all turns before it, joined by blank lines."""
        return "\n\n".join(message["content"] for message in self.messages[:-1])

    @property
    def response(self) -> str:
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Judged:
    """What a judge says of one response.

    Attributes:
        id: that of the request.
        satisfactory: the verdict; None where there is none (a reply that stayed malformed), never a guess.
        judgment: what is wrong, in words; None where nothing is. With `satisfactory=None`, None too.
        detail: how it was come to, in plain JSON values: the judge's model, tokens, cost, attempts, or `reason` why
            it was set aside.
    """

    id: str
    satisfactory: bool | None
    judgment: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.satisfactory is False and not (self.judgment or "").strip():
            raise ValueError(f"the judge rejects {self.id} without a word: Align-N needs a judgment")


class WaitingForPeople(RuntimeError):
    """People have not judged everything yet: what is there was given; the message says where the rest waits.

    The process ends with status 75 (try again later), and the same command goes on.
    """


class Judge(Protocol):
    """Anything that judges. It may answer in any order; the caller writes each answer down as it comes."""

    def judge(self, requests: Sequence[JudgeRequest], done: Set[str] = frozenset()) -> Iterator[Judged]:
        """One `Judged` for each request that is not done, as soon as it is there.

        Args:
            requests: all of the stage: where a judge works in batches, they must not depend on interruptions.
            done: ids that an earlier start has judged.
        """
