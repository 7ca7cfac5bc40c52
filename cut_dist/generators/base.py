"""What every generator is given and gives: prompts with seeds in, sampled responses out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from cut_dist.wording import UserError


class ModelOutputError(UserError, RuntimeError):
    """A model gives logits that nothing can be sampled from."""


def stable_seed(seed: int, *parts: str | int) -> int:
    """A seed below 2**31 that is a function of a seed and some names, the same on every machine."""
    digest = hashlib.sha256("\0".join(map(str, (seed, *parts))).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True)
class GenerationRequest:
    """One response to sample.

    Attributes:
        id: the response's id, unique among the requests.
        instruction: what to answer; the generator writes it into the prompt of `data.template`.
        seed: of this response; a generator that samples in batches seeds a batch by its first request.
    """

    id: str
    instruction: str
    seed: int


@dataclass(frozen=True)
class Generation:
    """One sampled response.

    Attributes:
        id: that of the request.
        response: the text, without end-of-sequence or other control tokens.
        finish_reason: "stop" where the model ended by itself, "length" at `generator.max_new_tokens`.
        prompt_tokens: of the prompt.
        response_tokens: of the response, the end-of-sequence token counted.
        sampling: how it was sampled, in plain JSON values: generator, model, temperature, top_p, seed, ...
    """

    id: str
    response: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    response_tokens: int
    sampling: dict[str, Any] = field(default_factory=dict)


class Generator(Protocol):
    """Anything that answers instructions."""

    def generate(self, requests: Sequence[GenerationRequest], done: Set[str]) -> Iterator[Sequence[Generation]]:
        """Responses in groups, each as soon as it is there; the caller writes a group down at once.

        Args:
            requests: all requests of the stage, those already answered too: what is sampled together must be a
                function of all of them, not of where the last start was interrupted.
            done: ids that have been written down by an earlier start, which need no answer.
        """
