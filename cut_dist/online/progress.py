"""How far a stage is: a bar in a terminal, elsewhere a log line now and then."""

from __future__ import annotations

import logging
import sys
import time

log = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0


class Progress:
    """Counts what a stage has done.

    Args:
        what: the verb, "judged".
        total: how many there are.
        done: how many were done by earlier starts.
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done, self._before = what, total, done, done
        self._began = self._said = time.monotonic()
        self._terminal = sys.stderr.isatty()
        if done:
            log.info("%s: %d of %d were done by an earlier start", what, done, total)

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more; `note` is added to the line."""
        self._done += count
        now, last = time.monotonic(), self._done >= self._total
        if last or now - self._said >= (0.2 if self._terminal else _LINE_EVERY_S):
            self._said = now
            self._say(now, last, note)

    def _say(self, now: float, last: bool, note: str) -> None:
        rate = (self._done - self._before) / max(now - self._began, 1e-9)
        line = f"{self._what} {self._done:,}/{self._total:,}  {rate:.2g}/s  {note}".rstrip()
        if self._terminal:
            print(f"\r\033[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            log.info("%s", line)
