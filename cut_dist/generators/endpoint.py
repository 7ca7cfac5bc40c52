"""Generator `endpoint`: responses from any server that speaks OpenAI's protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cut_dist.config_check import require
from cut_dist.data.templates import render_prompt
from cut_dist.endpoint.client import Client
from cut_dist.endpoint.errors import EndpointError, SetAside
from cut_dist.endpoint.store import Store, spent_in
from cut_dist.endpoint.stream import stream
from cut_dist.generators.base import Generation, GenerationRequest
from cut_dist.generators.config import GeneratorConfig
from cut_dist.online.files import budget_owner
from cut_dist.wording import counted

if TYPE_CHECKING:
    from cut_dist.online.config import OnlineConfig

log = logging.getLogger(__name__)

_NAMED = 5
_PATHS = {"chat": "chat/completions", "completions": "completions"}
_ENDS = {"stop": "stop", "eos": "stop", "length": "length"}  # the server's word for it, ours


def make(cfg: OnlineConfig) -> EndpointGenerator:
    """The generator of a stage. Its replies lie beside the stage's output: another round's model goes by the same name
    on its server, so they are no other stage's. All stages of a run share one budget.

    Raises:
        ConfigError: `api=completions` with a template that the server writes itself.
    """
    render, template = None, cfg.data.template
    if cfg.generator.api == "completions":
        remedy = "a server adds control tokens to those of the chat template; with generator.api=chat it writes all"
        require(template == "alpaca", "generator.api", "completions", remedy)
        render = partial(render_prompt, None, template)
    elif template == "alpaca":
        log.warning("the server writes the prompts; generator.api=completions has data.template=alpaca, as training")
    output = Path(cfg.stage.output)
    store = output.with_name(f"{output.name}.replies.sqlite")
    owner = budget_owner(cfg.run, output)
    others = [path for path in sorted(owner.rglob("*.replies.sqlite")) if path != store.resolve()]
    spent_elsewhere = sum(spent_in(path) for path in others)
    return EndpointGenerator(cfg.generator, store, spent_elsewhere=spent_elsewhere, render=render)


class EndpointGenerator:
    """Samples each response by a request of its own, with its own seed.

    Args:
        cfg: the `generator` section.
        store: SQLite file of the replies that were paid for.
        spent_elsewhere: US dollars of the same budget that other stores have noted.
        render: from an instruction to the text of its prompt, for `api=completions`.

    Attributes:
        summary: after `generate`: replies, failed attempts by kind, dollars; see `Client.summary`.
    """

    def __init__(
        self,
        cfg: GeneratorConfig,
        store: Path,
        *,
        spent_elsewhere: float = 0.0,
        render: Callable[[str], str] | None = None,
    ) -> None:
        self.cfg, self.store, self.spent_elsewhere, self.render = cfg, store, spent_elsewhere, render
        self.summary: dict[str, Any] = {}
        self._set_aside: dict[str, str] = {}

    def generate(self, requests: Sequence[GenerationRequest], done: Set[str]) -> Iterator[Sequence[Generation]]:
        """Responses one by one, as they come; see `generators.base.Generator`.

        Raises:
            EndpointError: the run can't go on (no such key or model, budget used up, server down); or, after all other
                responses, some requests got none, which are named. Start again then.
        """
        self._set_aside = {}
        left = [request for request in requests if request.id not in done]
        client = Client(self.cfg.endpoint, Store(self.store), "generator", self.spent_elsewhere)
        try:
            for generation in stream(client, left, self._generate):
                if generation is not None:
                    yield [generation]
        finally:
            self.summary = client.summary()
            log.info("generator: %s", client.summary_text())
        if self._set_aside:
            named = "\n  ".join(f"{id}: {reason}" for id, reason in sorted(self._set_aside.items())[:_NAMED])
            raise EndpointError(
                f"{counted(len(self._set_aside), 'instruction')} got no response, all others are kept:\n  {named}\n"
                "Started again, those that got no reply are asked once more; what the model can't take or the server "
                "refuses, leave out of the instructions"
            )

    async def _generate(self, client: Client, request: GenerationRequest) -> Generation | None:
        try:
            reply = await client.ask(_PATHS[self.cfg.api], self._payload(request))
            if reply.finish_reason not in _ENDS:
                raise SetAside(f"the server ended the response by {reply.finish_reason!r}")
        except SetAside as error:
            self._set_aside[request.id] = str(error)
            return None
        sampling = self._sampling(request) | ({"tokens": "estimated"} if reply.estimated else {})
        cost = client.budget.cost(reply.prompt_tokens, reply.completion_tokens)
        sampling |= {"cost": cost} if cost else {}
        return Generation(
            id=request.id,
            response=reply.text,
            finish_reason=_ENDS[reply.finish_reason],
            prompt_tokens=reply.prompt_tokens,
            response_tokens=reply.completion_tokens,
            sampling=sampling,
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
