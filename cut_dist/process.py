"""What a process of a job owes the machine: to stop when asked, to die with its parent, to leave no file. No torch."""

from __future__ import annotations

import atexit
import ctypes
import glob
import os
import secrets
import signal
import socket
import sys
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

UNFINISHED = 75  # exit status, EX_TEMPFAIL of sysexits.h: started again, the same command goes on
_PR_SET_PDEATHSIG = 1
# Below 32768, where Linux takes the ports of outgoing connections from: one of those may have it by the time it is used
_PORTS = range(20000, 32768)


class StopSignal:
    """Whether this process was asked to checkpoint and stop: by SIGTERM, or by the end of the `deepspeed` command.

    That command starts one launcher a node, on several nodes by ssh, and it starts the ranks. Linux tells a process of
    its parent's end only, so what started the launcher is looked for: without it the ranks would train on as orphans.

    Args:
        interrupt: take SIGINT for the same; without, it ends the process as usual.
    """

    def __init__(self, interrupt: bool = False):
        self.signals = 0  # how many came
        self._commands = _commands_above()
        for number in (signal.SIGTERM, *([signal.SIGINT] if interrupt else [])):
            signal.signal(number, self._on_signal)
            # Python hands signals back to the system before it is gone. A second one, which a launcher sends to the
            # ranks' children too, would then turn the exit status of a rank that has saved into a signal's.
            atexit.register(signal.signal, number, signal.SIG_IGN)

    def _on_signal(self, *_) -> None:
        self.signals += 1

    @property
    def asked(self) -> bool:
        return self.signals > 0 or any(not Path(f"/proc/{process}").exists() for process in self._commands)


def _commands_above() -> list[int]:
    """The process ids of the `deepspeed` command that started this node's launcher, or of the ssh session that did."""
    try:
        process = os.getppid()
        if b"deepspeed.launcher.launch" not in _command_line(process):
            return []
        found = []
        while True:
            # "pid (name) state ppid ...": the name may hold spaces
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
            command = _command_line(process)
            if b"deepspeed" not in command and b"sshd" not in command:
                return found
            found.append(process)
            if b"deepspeed.launcher.launch" not in command:  # else it is a shell between sshd and the launcher
                return found
    except OSError:
        return []


def _command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def die_with_parent() -> None:
    """Ask Linux to send SIGTERM when the parent dies: orphans would go on writing into the run's folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port(taken: Container[int] = ()) -> int:
    """A port of this machine that nothing listens on, and that is not in `taken`."""
    while True:
        port = secrets.choice(_PORTS)
        if port in taken:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port


def remove_shared_buffers(port: int) -> None:
    """Remove a job's `/dev/shm/deepspeed_*_buffer_*` files, which DeepSpeed's CPU collectives leave (66 MB a rank).

    Args:
        port: MASTER_PORT of the job, which is in their names. A rank that still has a file mapped keeps it.
    """
    for path in glob.glob(f"/dev/shm/deepspeed_*{port}_*"):
        with suppress(FileNotFoundError):
            os.unlink(path)
