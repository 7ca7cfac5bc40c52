"""A rate limit that holds for any minute, not only on average."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_WINDOW_S = 60.0
_LOOK_S = 0.25  # amounts that are set right make room before the oldest leaves


@dataclass
class Entry:
    """Something that counts for a minute; `amount` may be set right once it is known."""

    at: float
    amount: float


class RateLimit:
    """Lets in no more than `per_minute` in any 60 seconds; None lets in all.

    Args:
        per_minute: the limit. A single amount above it counts as the limit: it goes alone.
        clock: seconds, going up.
        sleep: waits for so many of them.
    """

    def __init__(
        self,
        per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limit, self._clock, self._sleep = per_minute, clock, sleep
        self._entries: deque[Entry] = deque()
        self._turn = asyncio.Lock()  # who came first goes first

    async def enter(self, amount: float) -> Entry:
        """Wait until `amount` fits, and count it."""
        if self._limit is None:
            return Entry(0.0, amount)
        amount = min(amount, self._limit)
        async with self._turn:
            while self._used() + amount > self._limit:
                until_oldest_leaves = self._entries[0].at + _WINDOW_S - self._clock()
                await self._sleep(min(max(until_oldest_leaves, 0.001), _LOOK_S))
            entry = Entry(self._clock(), amount)
            self._entries.append(entry)
        return entry

    def _used(self) -> float:
        oldest = self._clock() - _WINDOW_S
        while self._entries and self._entries[0].at <= oldest:
            self._entries.popleft()
        return sum(entry.amount for entry in self._entries)
