"""Generator `endpoint`: responses from any server that speaks OpenAI's protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from cut_dist.endpoint.client import Client
from cut_dist.endpoint.errors import SetAside
from cut_dist.endpoint.store import Store
from cut_dist.endpoint.stream import stream
from cut_dist.generators.base import Generation, GenerationRequest
from cut_dist.generators.config import GeneratorConfig

log = logging.getLogger(__name__)

_PATHS = {"chat": "chat/completions", "completions": "completions"}
_ENDS = {"stop": "stop", "eos": "stop", "length": "length"}  # the server's word for it, ours


class EndpointGenerator:
    """Samples each response by a request of its own, with its own seed.

    Args:
        cfg: the `generator` section.
        store: SQLite file of the replies that were paid for, beside the stage's output: another round's model goes by
            the same name on its server, so replies are never shared between stages.
        account: whose budget it is, over all starts: the same text for the same run.
        render: from an instruction to the text of its prompt, for `api=completions`.

    Attributes:
        set_aside: id → reason of requests that got no response.
        summary: after `generate`: replies, failed attempts by kind, dollars; see `Client.summary`.
    """

    def __init__(
        self, cfg: GeneratorConfig, store: Path, account: str = "generator", render: Callable[[str], str] | None = None
    ) -> None:
        if cfg.api == "completions" and render is None:
            raise ValueError("api=completions needs `render`, which writes the prompt")
        self.cfg, self.store, self.account, self.render = cfg, store, account, render
        self.set_aside: dict[str, str] = {}
        self.summary: dict[str, Any] = {}

    def generate(self, requests: Sequence[GenerationRequest], done: Set[str]) -> Iterator[Sequence[Generation]]:
        """Responses one by one, as they come; none for what ends up in `set_aside`.

        Raises:
            EndpointError: the run can't go on (no such key or model, budget used up, server down). Start again then.
        """
        left = [request for request in requests if request.id not in done]
        client = Client(self.cfg.endpoint, Store(self.store), self.account)
        try:
            for generation in stream(client, left, self._generate):
                if generation is not None:
                    yield [generation]
        finally:
            self.summary = client.summary()
            log.info("generator: %s", client.summary_text())

    async def _generate(self, client: Client, request: GenerationRequest) -> Generation | None:
        try:
            reply = await client.ask(_PATHS[self.cfg.api], self._payload(request))
            if reply.finish_reason not in _ENDS:
                raise SetAside(f"the server ended the response by {reply.finish_reason!r}")
        except SetAside as error:
            self.set_aside[request.id] = str(error)
            log.warning("no response to %s: %s", request.id, error)
            return None
        counted = {"tokens": "estimated"} if reply.estimated else {}
        return Generation(
            id=request.id,
            response=reply.text,
            finish_reason=_ENDS[reply.finish_reason],
            prompt_tokens=reply.prompt_tokens,
            response_tokens=reply.completion_tokens,
            sampling={**self._sampling(request), **counted},
        )

    def _sampling(self, request: GenerationRequest) -> dict[str, Any]:
        return {
            "generator": "endpoint",
            "model": self.cfg.endpoint.model,
            "api": self.cfg.api,
            "temperature": self.cfg.temperature,
            "top_p": self.cfg.top_p,
            "max_new_tokens": self.cfg.max_new_tokens,
            "seed": request.seed,
        }

    def _payload(self, request: GenerationRequest) -> dict[str, Any]:
        if self.cfg.api == "chat":
            prompt = {"messages": [{"role": "user", "content": request.instruction}]}
        else:
            prompt = {"prompt": self.render(request.instruction)}
        return {
            "model": self.cfg.endpoint.model,
            **prompt,
            "temperature": self.cfg.temperature,
            "top_p": self.cfg.top_p,
            "seed": request.seed,
            self.cfg.endpoint.output_limit: self.cfg.max_new_tokens,
        }
