"""Judge `endpoint`: a model behind OpenAI's protocol judges in words, as GPT-4 does in the paper, or in JSON."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cut_dist.cache import cache_root
from cut_dist.endpoint.client import Client
from cut_dist.endpoint.errors import SetAside
from cut_dist.endpoint.protocol import Reply
from cut_dist.endpoint.store import Store
from cut_dist.endpoint.stream import stream
from cut_dist.judges.base import Judged, JudgeRequest
from cut_dist.judges.config import JudgeConfig
from cut_dist.judges.endpoint_prompt import judge_messages, mark_of, response_format
from cut_dist.judges.endpoint_verdict import Unreadable, Verdict, read_paper, read_structured
from cut_dist.online.files import budget_owner

if TYPE_CHECKING:
    from cut_dist.online.config import OnlineConfig

log = logging.getLogger(__name__)

_LONGEST_CHARS = 100_000  # of a response; a longer one is no answer but a flood, and is not paid for


def make(cfg: OnlineConfig) -> EndpointJudge:
    """The judge of a stage; all stages of a run share one budget, and all runs the replies."""
    return EndpointJudge(cfg.judge, account=f"judge of {budget_owner(cfg.run, Path(cfg.stage.output))}")


class EndpointJudge:
    """Asks, reads strictly, asks again, sets aside. The replies are kept: the same question is never paid for twice.

    Args:
        cfg: the `judge` section.
        account: whose budget it is, over all starts: the same text for the same run.

    Attributes:
        summary: after `judge`: replies, failed attempts by kind, dollars; see `Client.summary`.
    """

    def __init__(self, cfg: JudgeConfig, account: str = "judge") -> None:
        self.cfg, self.account = cfg, account
        self.summary: dict[str, Any] = {}

    def judge(self, requests: Sequence[JudgeRequest], done: Set[str] = frozenset()) -> Iterator[Judged]:
        """One `Judged` for each request that is not done, as they come; see `judges.base.Judge`.

        Raises:
            EndpointError: the run can't go on (no such key or model, budget used up, server down). Start again then.
        """
        path = Path(self.cfg.cache).expanduser() if self.cfg.cache else cache_root() / "judgments.sqlite"
        client = Client(self.cfg.endpoint, Store(path), self.account)
        try:
            yield from stream(client, (each for each in requests if each.id not in done), self._judge)
        finally:
            self.summary = client.summary()
            log.info("judge: %s", client.summary_text())

    async def _judge(self, client: Client, request: JudgeRequest) -> Judged:
        replies: list[Reply] = []
        troubles: list[str] = []
        try:
            if len(request.response) > _LONGEST_CHARS:
                raise SetAside(f"not sent: longer than {_LONGEST_CHARS:,} characters")
            while len(troubles) <= self.cfg.malformed_retries:
                replies.append(await client.ask("chat/completions", self._payload(request, troubles)))
                try:
                    satisfactory, judgment = self._read(replies[-1], request, bool(troubles))
                except Unreadable as error:
                    troubles.append(str(error))
                else:
                    return Judged(request.id, satisfactory, judgment, self._detail(client, replies))
            reason = f"no verdict in {len(troubles)} replies: {'; '.join(troubles)}"
        except SetAside as error:
            reason = str(error)
        return Judged(request.id, None, None, {**self._detail(client, replies), "reason": reason})

    def _payload(self, request: JudgeRequest, troubles: list[str]) -> dict[str, Any]:
        payload = {
            "model": self.cfg.endpoint.model,
            "messages": judge_messages(request, self.cfg.prompt, troubles),
            "temperature": self.cfg.temperature,
            self.cfg.endpoint.output_limit: self.cfg.max_new_tokens,
        }
        return payload | ({"response_format": response_format()} if self.cfg.prompt == "structured" else {})

    def _read(self, reply: Reply, request: JudgeRequest, again: bool) -> Verdict:
        mark = mark_of(request)
        if self.cfg.prompt == "structured":
            return read_structured(reply, mark)
        return read_paper(reply, request.response, mark, marked=again)

    def _detail(self, client: Client, replies: list[Reply]) -> dict[str, Any]:
        """The same whether the replies were bought now or found in the store, so that a restart changes no file."""
        prompt_tokens = sum(reply.prompt_tokens for reply in replies)
        completion_tokens = sum(reply.completion_tokens for reply in replies)
        return {
            "judge": "endpoint",
            "model": self.cfg.endpoint.model,
            "prompt": self.cfg.prompt,
            "replies": len(replies),
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "cost": client.budget.cost(prompt_tokens, completion_tokens),
        }
