"""How far a stage is: a bar on a terminal, else a log line now and then."""

from __future__ import annotations

import logging
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cut_dist.wording import counted

log = logging.getLogger(__name__)

_EVERY_S = 10.0


class StageProgress:
    """A context manager that counts what a stage has done.

    Args:
        done: what happened to the things, "generated" or "judged".
        noun: one of them.
        total: how many are to come.
    """

    def __init__(self, done: str, noun: str, total: int) -> None:
        self._done, self._noun, self._total = done, noun, total
        self._count = self._tokens = 0
        self._began = self._spoke = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> StageProgress:
        console = Console(stderr=True)  # where the log lines go
        # the logger's level is what keeps ranks other than 0 silent
        if console.is_terminal and log.isEnabledFor(logging.INFO):
            columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}"), console=console)
            self._task = self._bar.add_task("", total=self._total)
            self._bar.start()
        return self

    def advance(self, count: int, tokens: int = 0) -> None:
        """Note that `count` more are done, which took `tokens` new tokens."""
        self._count += count
        self._tokens += tokens
        # a batch that was interrupted is done again whole: more than was open at the start
        self._total = max(self._total, self._count)
        now = time.monotonic()
        speed = f"{self._tokens / max(now - self._began, 1e-6):,.0f} tokens/s" if self._tokens else ""
        if self._bar:
            self._bar.update(self._task, completed=self._count, total=self._total, description=speed)
        elif now - self._spoke >= _EVERY_S or self._count == self._total:
            self._spoke = now
            log.info("%s %d of %s  %s", self._done, self._count, counted(self._total, self._noun), speed)

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
