"""How the ranks of a job ended, and what that makes of the job."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cut_dist.run_folder import read_finished

GRACE_S = 8.0  # a rank that meets the problem that rank 0 tells of waits 5 s for it, see cli.py
LAST_S = 1800.0  # as long as a collective waits
_TAIL = 1 << 16
_SAID = re.compile(r"^error: (?:\[rank \d+\] )?(.+)")
_RAISED = re.compile(r"^(?:\[rank\d+\]: ?)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt|NotFound|Exit)\b.*)")
_STAMP = re.compile(r"^\d\d:\d\d:\d\d ")
# How the other ranks notice that one is gone.
_ECHO = re.compile(r"(closed|reset) by peer|Broken pipe|remote process exited|Connection refused|DistBackendError")


@dataclass(frozen=True)
class End:
    """One rank's end: its exit status (minus the signal's number where one killed it) and its last words."""

    rank: int
    status: int
    reason: str | None = None


class Ends:
    """The ends of a job's ranks, as they become known.

    Args:
        ranks: how many there are.
        clock: seconds, for the tests.
    """

    def __init__(self, ranks: int, clock: Callable[[], float] = time.monotonic):
        self.known: list[End] = []
        self._ranks, self._clock = ranks, clock
        self._first = self._first_bad = None

    def add(self, end: End) -> None:
        self.known.append(end)
        self._first = self._first or self._clock()
        if end.status:
            self._first_bad = self._first_bad or self._clock()

    @property
    def complete(self) -> bool:
        return len(self.known) == self._ranks

    @property
    def overdue(self) -> bool:
        """Whether those that still run have to be killed: in a collective they would wait for the others for ever."""
        now = self._clock()
        failed = self._first_bad is not None and now > self._first_bad + GRACE_S
        return failed or (self._first is not None and now > self._first + LAST_S)

    @property
    def cause(self) -> End | None:
        """The end that explains the failure: the first bad one that is no echo of another; None where all is well."""
        bad = [end for end in self.known if end.status]
        return min(bad, key=lambda end: bool(_ECHO.search(end.reason or "")), default=None)


def verdict(ends: Ends, folder: Path, stop_asked: bool) -> tuple[str, int, str | None]:
    """What a job has come to, once all its ranks have ended.

    Args:
        ends: of all ranks.
        folder: the job's.
        stop_asked: whether it was told to stop.

    Returns:
        Status ("finished", "failed" or "stopped"), exit code and reason.
    """
    cause = ends.cause
    why = f"rank {cause.rank}: {cause.reason or described(cause.status)}" if cause else None
    if read_finished(folder) is not None:  # a run's last act: what a rank does after it takes nothing away
        return "finished", cause.status if cause else 0, why and f"after its end {why}"
    if cause is None:
        return "stopped", 0, "saved and stopped as asked"
    if stop_asked and all(end.status in (0, -signal.SIGTERM, -signal.SIGKILL) for end in ends.known):
        return "stopped", cause.status, "stopped before it could save"
    return "failed", cause.status, why


def described(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {signal.Signals(-status).name}"


def last_words(output: Path, offset: int, status: int) -> str | None:
    """Why a process ended, in one line: what it told its user, else its exception, else its last line.

    Args:
        output: file that holds what it printed.
        offset: where its output begins in it.
        status: its exit status.
    """
    if status == 0:
        return None
    with output.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(offset, size - _TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    found = None
    for pattern in (_SAID, _RAISED):
        found = found or next((match[1] for line in reversed(lines) if (match := pattern.match(line))), None)
    if status < 0:
        return described(status) + (f" ({found})" if found else "")
    if found is None and lines:
        found = _STAMP.sub("", lines[-1])
    return found[:400] if found else described(status)
