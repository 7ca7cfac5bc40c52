"""One rank of one job as a process: its environment, its output in a file, its end. No torch here."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cut_dist.process import die_with_parent, remove_shared_buffers
from cut_dist.sweep.ends import End, last_words
from cut_dist.sweep.folder import CONSOLE_FILE

# What a launcher or an earlier job may have left in the environment, and a rank must not take over.
_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
              "CROSS_RANK", "CROSS_SIZE", "GROUP_RANK", "ROLE_RANK")  # fmt: skip


class RankProcess:
    """Starts the rank. Its session is its own, so Ctrl-C in a terminal reaches it only through us.

    Started from the main thread: Linux takes the end of the thread that started it for the end of its parent.

    Args:
        command: what to run.
        env: of the rank, whole: RANK, MASTER_PORT and the like are in it.
        folder: of the job; rank 0 prints to console.log, another rank to a file of its own, which stays if it fails.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path):
        self.rank, self._port = int(env["RANK"]), int(env["MASTER_PORT"])
        self._output = folder / (CONSOLE_FILE if self.rank == 0 else f"console.rank{self.rank}.log")
        self._killed: str | None = None
        self._ended = self._asked = False
        with self._output.open("ab") as file:
            self._offset = file.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                command, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip

    def poll(self) -> End | None:
        """Its end, once; None while it runs and ever after."""
        if self._ended or self._process.poll() is None:
            return None
        self._ended = True
        self._end_group()
        remove_shared_buffers(self._port)
        status = self._process.returncode
        reason = self._killed or last_words(self._output, self._offset, status)
        if status == 0 and self.rank:
            self._output.unlink(missing_ok=True)
        return End(self.rank, status, reason)

    def ask_to_stop(self) -> None:
        """SIGTERM, once: training saves and ends after the step at hand, when all ranks have heard of it."""
        if not self._ended and not self._asked:
            self._asked = True
            with suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self, reason: str) -> None:
        """End it and what it has started at once; its end will say `reason`."""
        if not self._ended:
            self._killed = reason
            self._end_group()

    def _end_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def rank_env(rank: int, local_rank: int, world_size: int, local_size: int, address: str, port: int) -> dict[str, str]:
    """The environment of a rank that this process starts itself: ours, less what a launcher has set, and its own."""
    inherited = {key: value for key, value in os.environ.items() if key not in _LAUNCHERS}
    own = {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": world_size, "LOCAL_SIZE": local_size,
           "MASTER_ADDR": address, "MASTER_PORT": port}  # fmt: skip
    return inherited | {key: str(value) for key, value in own.items()}
