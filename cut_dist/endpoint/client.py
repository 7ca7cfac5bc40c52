"""An asynchronous client of any server that speaks OpenAI's protocol: nothing paid for is lost or asked for twice.

httpx2 is the transport. The openai package brings retries too, but counts, rates, budgets and waits per attempt are
what matters here, and they don't fit into its loop; ours is `Client._until_answered`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from typing import Any

import httpx2

from cut_dist.endpoint.budget import Budget, Expense
from cut_dist.endpoint.config import EndpointConfig
from cut_dist.endpoint.errors import EndpointError, SetAside, Transient
from cut_dist.endpoint.protocol import Payload, Reply, encode, failure, guess_tokens, read_reply, request_key
from cut_dist.endpoint.rate import RateLimit
from cut_dist.endpoint.store import Store

_PRESSED = "HTTP 429"
_CONNECT_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_LONGEST_ASKED_PAUSE_S = 600.0  # a server that asks for more is asked again by the next start
_PER_PROMPT_TOKENS = 64  # more than any chat template writes around two messages
_LAST_REPLIES_S = 10.0  # at the end: replies under way are paid for, so they are waited for this long


class Client:
    """Asks, retries, keeps. Made anywhere, used in one event loop, closed once.

    Args:
        cfg: the server, and how hard to press it.
        store: where replies and expenses are kept; the client closes it.
        account: whose budget it is, over all starts: the same text for the same run.
        spent_elsewhere: US dollars of that budget that other stores have noted.

    Attributes:
        counts: replies ("answered", of these "from_store") and failed attempts by kind ("HTTP 429", "timeout", ...).
        budget: what was spent.
    """

    def __init__(self, cfg: EndpointConfig, store: Store, account: str, spent_elsewhere: float = 0.0) -> None:
        self.cfg, self.store = cfg, store
        self.budget = Budget(cfg, store, account, spent_elsewhere)
        self._spent_before = self.budget.spent
        self.counts: Counter[str] = Counter()
        self._key = _api_key(cfg.api_key_variable)
        self._slots = asyncio.Semaphore(cfg.concurrency)
        self._requests, self._tokens = RateLimit(cfg.requests_per_minute), RateLimit(cfg.tokens_per_minute)
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._under_way: set[asyncio.Future[Reply]] = set()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._http = httpx2.AsyncClient(
            base_url=cfg.base_url,
            headers=headers,
            timeout=httpx2.Timeout(cfg.timeout_s, connect=min(_CONNECT_S, cfg.timeout_s), pool=None),
            limits=httpx2.Limits(max_connections=cfg.concurrency, max_keepalive_connections=cfg.concurrency),
        )

    async def ask(self, path: str, payload: Payload) -> Reply:
        """The reply to a request: the one that is kept, else the server's, which is kept before it is returned.

        Args:
            path: below base_url, such as "chat/completions".
            payload: the request, with its limit of output tokens under `cfg.output_limit`.

        Raises:
            SetAside: this request gets no reply.
            EndpointError: the run can't go on.
        """
        body = encode(payload)
        key = request_key(path, body)
        async with self._asking[key]:  # the same request twice at once: the second finds the first one's reply
            reply = self.store.reply(key)
            if reply is None:
                reply = await self._until_answered(path, body, key, payload[self.cfg.output_limit])
            else:
                self.counts["from_store"] += 1
        self.counts["answered"] += 1
        return reply

    def summary(self) -> dict[str, Any]:
        """Replies and failed attempts by kind, and US dollars: of this start "cost", of the account "spent"."""
        return {**self.counts, "cost": self.budget.spent - self._spent_before, "spent": self.budget.spent}

    def summary_text(self) -> str:
        """The same in a line for the log."""
        counts = ", ".join(f"{kind} {number:,}" for kind, number in sorted(self.counts.items()))
        limit = "" if self.cfg.budget is None else f" of ${self.cfg.budget:,.2f}"
        return f"{counts or 'no replies'}; ${self.budget.spent:,.4f}{limit} spent"

    async def close(self) -> None:
        """Wait a little for replies under way, which are paid for, keep them, and close everything."""
        late = list(self._under_way)
        if late:
            _, too_late = await asyncio.wait(late, timeout=_LAST_REPLIES_S)
            for exchange in too_late:
                exchange.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._http.aclose()
        self.store.close()

    async def _until_answered(self, path: str, body: bytes, key: str, limit: int) -> Reply:
        failed_alone = 0  # attempts in a row, up to this one, in which nobody else was answered either
        answered_first = self.counts["answered"]
        for number in itertools.count(1):
            answered_before = self.counts["answered"]
            try:
                return await self._attempt(path, body, key, limit)
            except Transient as error:
                self.counts[error.kind] += 1
                if number == self.cfg.max_attempts:
                    raise self._given_up(error, others_answered=self.counts["answered"] > answered_first) from None
                others_answered = self.counts["answered"] > answered_before and error.kind != _PRESSED
                failed_alone = 0 if others_answered else failed_alone + 1
                pause = _pause(failed_alone, error)
            await asyncio.sleep(pause)

    async def _attempt(self, path: str, body: bytes, key: str, limit: int) -> Reply:
        """One request, within all limits. While it waits to be tried again its slot is another's."""
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._slots)
            await self._requests.enter(1)
            tokens = await self._tokens.enter(guess_tokens(len(body)) + limit)
            # A token is at least one byte of the text.
            expense = await self.budget.reserve(self.budget.cost(len(body) + _PER_PROMPT_TOKENS, limit))
            exchange = asyncio.ensure_future(self._exchange(path, body, key, expense, slot=held.pop_all()))
        self._under_way.add(exchange)
        exchange.add_done_callback(self._under_way.discard)
        reply = await asyncio.shield(exchange)  # cancelled here it goes on, since it is paid for: see `close`
        tokens.amount = reply.prompt_tokens + reply.completion_tokens
        return reply

    async def _exchange(self, path: str, body: bytes, key: str, expense: Expense | None, slot: AsyncExitStack) -> Reply:
        """Send a request and keep the reply, with its cost in the same transaction; the slot is for the first only."""
        try:
            async with slot:
                await self.budget.note(expense)
                reply = await self._post(path, body)
        except (Transient, SetAside, EndpointError) as error:
            paid = isinstance(error, Transient) and error.paid
            await (self.budget.close(expense, None) if paid else self.budget.void(expense))
            raise
        cost = self.budget.cost(reply.prompt_tokens, reply.completion_tokens)
        if expense and reply.estimated:
            cost = expense.worst
        await self.store.save(key, self.cfg.model, reply, (expense.id, cost) if expense else None)
        await self.budget.close(expense, cost)
        return reply

    async def _post(self, path: str, body: bytes) -> Reply:
        try:
            answer = await asyncio.wait_for(self._http.post(path, content=body), self.cfg.timeout_s)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Transient("connection", f"{type(error).__name__}: {error}") from None
        except (asyncio.TimeoutError, httpx2.TimeoutException):
            raise Transient("timeout", f"no reply within {self.cfg.timeout_s:g} s (timeout_s)", paid=True) from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise Transient("connection", f"{type(error).__name__}: {error}", paid=True) from None
        content = answer.content
        if self._key:  # some servers repeat it in their complaints
            content = content.replace(self._key.encode(), b"***")
        if answer.status_code == 200:
            return read_reply(content, len(body))
        raise failure(answer.status_code, answer.headers, content, self.cfg.model, self.cfg.api_key_variable)

    def _given_up(self, error: Transient, *, others_answered: bool) -> Exception:
        said = f"no reply after {self.cfg.max_attempts} attempts, the last: {error}"
        if error.kind == _PRESSED:
            return EndpointError(
                f"{said}. The server is pressed too hard: lower endpoint.concurrency, or set "
                "endpoint.requests_per_minute and endpoint.tokens_per_minute to its limits, and start again: "
                "all replies are kept"
            )
        if others_answered:  # so the server is up, and this request is what it fails on
            return SetAside(said)
        return EndpointError(f"{said}. Is {self.cfg.base_url} up? Start again then: all replies are kept")


def _api_key(variable: str) -> str:
    """The key, "" where none is set (servers of one's own want none)."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise EndpointError(f"the environment variable {variable} holds characters that no key has")
    return key


def _pause(failed_alone: int, error: Transient) -> float:
    """Seconds before the next attempt: those that the server asks for, and a back-off with jitter.

    The back-off grows while the server answers nobody, or says that it is pressed too hard; a server that answers
    others is up, and the next attempt is as likely to succeed as any.
    """
    if error.retry_after > _LONGEST_ASKED_PAUSE_S:
        raise EndpointError(
            f"the server asks to wait {error.retry_after:,.0f} s ({error}). Start again then: all replies are kept"
        )
    back_off = min(_FIRST_PAUSE_S * 2 ** max(failed_alone - 1, 0), _LONGEST_PAUSE_S)
    return error.retry_after + back_off * random.uniform(0.5, 1.0)
