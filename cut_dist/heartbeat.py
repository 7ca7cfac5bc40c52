"""Signs of life of all ranks in the run's folder, and a sentence for a rank that waited for another in vain.

    ranks/00003.json    rank, host, pid, step, where its main thread is, when this was written

Each rank has a thread that writes its file every few seconds; a clean end removes it. What is left tells, after a hang,
who fell silent and where: PyTorch's own error names neither, and NCCL ends the process without any exception.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import walk_stack, walk_tb
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from cut_dist.lineage import redact
from cut_dist.wording import UserError

if TYPE_CHECKING:
    from cut_dist.engine.launch import Ranks

log = logging.getLogger(__name__)

FOLDER = "ranks"

_PACKAGE = str(Path(__file__).resolve().parent)
_INTERVAL_S = 10.0  # between two signs of life, or less where the timeout is short
_MISSED = 3  # this many intervals without one are silence
_CLOSED = re.compile(r"closed by peer|reset by peer|remote process exited", re.IGNORECASE)
_NAMED = 4  # no more ranks than this are named in a sentence


class RankLost(UserError, RuntimeError):
    """A collective failed because of another rank or the network; says which, at which step, and what to do."""


@dataclass(frozen=True)
class Beat:
    """A rank's last sign of life.

    Attributes:
        step: optimizer steps done.
        at: the innermost line of this package that its main thread was in, such as "train.py:117".
        time: seconds since 1970, by the clock of `host`.
        ended: the exception that ended the rank; "" where there was none yet.
    """

    rank: int
    host: str
    pid: int
    step: int
    at: str
    time: float
    ended: str = ""

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})"


class Heartbeat:
    """Writes this rank's signs of life while it trains; turns a communication error into a `RankLost`.

    A context manager around the training loop, which sets `step`. Half-way to the timeout, one rank that is alive logs
    who it is waiting for: where NCCL kills the process at the timeout, no later word is possible.

    Args:
        folder: the run's folder, which all ranks share.
        timeout_minutes: that of the process group.
    """

    def __init__(self, folder: Path, ranks: Ranks, timeout_minutes: float, step: int = 0):
        self.step = step
        self._folder, self._rank, self._alone = folder / FOLDER, ranks.rank, ranks.world_size == 1
        self._timeout_s = 60 * timeout_minutes
        self.interval_s = min(_INTERVAL_S, self._timeout_s / 10)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._folder.mkdir(exist_ok=True)
        self._write(_main_place())
        self._thread.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if error is None:
            self._remove()
            return
        at = _place(frame for frame, _ in walk_tb(traceback))
        if not (isinstance(error, Exception) and is_communication_error(error)):
            self._write(at, ended=redact(f"{type(error).__name__}: {first_line(error)}"))
            return
        self._write(at, ended=RankLost.__name__)
        beats = read_beats(self._folder.parent)
        why = explain(beats, self._rank, self.silence_s, closed=_CLOSED.search(str(error)) is not None)
        raise RankLost(
            f"After step {self.step} {why}. Once hosts and network are well, the same command continues from the last "
            f"checkpoint. PyTorch's words, at {at}: {first_line(error)}"
        ) from error

    @property
    def silence_s(self) -> float:
        """After so many seconds without a sign a rank is silent."""
        return _MISSED * self.interval_s

    def _keep_writing(self) -> None:
        last, since, warned = None, time.monotonic(), False
        while not self._over.wait(self.interval_s):
            beat = self._write(_main_place())
            if (beat.step, beat.at) != last:
                last, since, warned = (beat.step, beat.at), time.monotonic(), False
            elif not (warned or self._alone) and time.monotonic() - since > self._timeout_s / 2:
                warned = True
                self._warn(time.monotonic() - since)

    def _warn(self, waited_s: float) -> None:
        """By the first rank that is alive only."""
        beats = read_beats(self._folder.parent)
        alive = [beat.rank for beat in beats if not _is_silent(beat, self.silence_s)]
        if self._rank == min(alive, default=self._rank):
            log.error(
                "[rank %d] no progress after step %d for %.0f s, of run.timeout_minutes=%g: %s", self._rank, self.step,
                waited_s, self._timeout_s / 60, explain(beats, self._rank, self.silence_s),
            )  # fmt: skip

    def _write(self, at: str, ended: str = "") -> Beat:
        beat = Beat(self._rank, socket.gethostname(), os.getpid(), self.step, at, time.time(), ended)
        path = self._folder / f"{self._rank:05d}.json"
        with suppress(OSError):  # a full disk is told by what must be written
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(asdict(beat)))
            os.replace(temporary, path)
        return beat

    def _remove(self) -> None:
        with suppress(OSError):  # the folder goes with the last rank
            (self._folder / f"{self._rank:05d}.json").unlink(missing_ok=True)
            self._folder.rmdir()


def read_beats(run: Path) -> list[Beat]:
    """The ranks' last signs of life in a run's folder, by rank; none after a clean end."""
    beats = []
    for path in sorted((run / FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            beats.append(Beat(**json.loads(path.read_text())))
    return beats


def explain(beats: Sequence[Beat], own_rank: int, silence_s: float, closed: bool = False) -> str:
    """Who the rank `own_rank` may be waiting for, as the middle of a sentence.

    Args:
        silence_s: after so many seconds without a sign a rank is silent.
        closed: a connection was closed at its other end, so a process has just ended.
    """
    others = [beat for beat in beats if beat.rank != own_rank]
    now = time.time()
    failed = [beat for beat in others if beat.ended and beat.ended != RankLost.__name__]
    silent = [beat for beat in others if not beat.ended and _is_silent(beat, silence_s)]
    if failed:
        said = (f"{beat} ended, at step {beat.step}, with {beat.ended}" for beat in failed[:_NAMED])
        return _joined(said, len(failed))
    if closed:
        who = others[0] if len(others) == 1 else "a rank"
        return f"{who} ended without an error of its own: killed, perhaps by its kernel for want of memory (dmesg)"
    if silent:
        said = (f"{beat} for {now - beat.time:.0f} s, since step {beat.step}, {beat.at}" for beat in silent[:_NAMED])
        return f"nothing is heard from {_joined(said, len(silent))}: it, or its host, is gone or stuck"
    if not others:
        return "no other rank has left a sign of life"
    if len({(beat.step, beat.at) for beat in beats}) > 1:
        behind = min(others, key=lambda beat: beat.step)
        return f"all ranks are alive, but not at the same place; {behind} is at step {behind.step}, {behind.at}"
    hosts = sorted({beat.host for beat in beats})
    return f"all ranks are alive and wait for each other: look at the network between {', '.join(hosts)}"


def is_communication_error(error: Exception) -> bool:
    """Whether a collective failed, rather than this rank's own work."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _is_silent(beat: Beat, silence_s: float) -> bool:
    return time.time() - beat.time > silence_s


def _joined(said: Iterable[str], total: int) -> str:
    text = ", and ".join(said)
    return f"{text}, and {total - _NAMED} more" if total > _NAMED else text


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _main_place() -> str:
    innermost = sys._current_frames().get(threading.main_thread().ident)
    return _place(reversed([frame for frame, _ in walk_stack(innermost)]))


def _place(frames: Iterable[FrameType]) -> str:
    """The innermost line in this package of frames that are given outermost first."""
    ours = [frame for frame in frames if frame.f_code.co_filename.startswith(_PACKAGE + os.sep)]
    ours = [frame for frame in ours if frame.f_code.co_filename != __file__]
    if not ours:
        return "outside cut_dist"
    return f"{os.path.relpath(ours[-1].f_code.co_filename, _PACKAGE)}:{ours[-1].f_lineno}"
