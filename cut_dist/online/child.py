"""A stage as a process of its own: its memory is free when it ends, and it ends with the loop."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cut_dist.online.stage import StageError
from cut_dist.process import die_with_parent

_POLL_S = 0.5
_KILL_AFTER_S = 60.0
_KILL_TRAINING_AFTER_S = 600.0  # a step and a checkpoint of a large model take minutes


class StageEnded(Exception):
    """The loop ends here, with this exit status; what there is to say has been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def run_child(
    command: Sequence[str],
    console: Path,
    *,
    watch: Callable[[], None],
    stop_asked: Callable[[], bool],
    stop_file: Path | None = None,
) -> int:
    """Run a command to its end, its output appended to a file.

    Args:
        command: the program and its arguments.
        console: the file.
        watch: called twice a second meanwhile.
        stop_asked: once true, the command is asked to end, and killed after a minute (its rows are on disk anyway) or,
            asked by `stop_file`, after ten.
        stop_file: what to touch to ask (training's STOP, after which it saves a checkpoint); without it, or before its
            folder is there, SIGTERM asks.

    Returns:
        Its exit status, negative for a signal.

    Raises:
        StageError: there is no such program.
    """
    console.parent.mkdir(parents=True, exist_ok=True)
    with console.open("ab") as out:
        # A session of its own: Ctrl-C in the terminal reaches the loop alone, which then stops the stage in order.
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=die_with_parent, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        except OSError as error:
            raise StageError(f"{command[0]} can't be started ({error.strerror}): see online.launcher") from error
        try:
            while child.poll() is None:
                watch()
                if stop_asked():
                    return _stop(child, stop_file)
                time.sleep(_POLL_S)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    watch()
    return child.returncode


def _stop(child: subprocess.Popen, stop_file: Path | None) -> int:
    by_file = stop_file is not None and stop_file.parent.is_dir()
    if not by_file:
        os.killpg(child.pid, signal.SIGTERM)
    end = time.monotonic() + (_KILL_TRAINING_AFTER_S if by_file else _KILL_AFTER_S)
    while child.poll() is None and time.monotonic() < end:
        if by_file:
            stop_file.touch()  # again and again: training that is only starting takes an older one away
        time.sleep(_POLL_S)
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    return child.wait()
