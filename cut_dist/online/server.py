"""A server of the round's own model for `generator=endpoint`: started before a stage needs it, ended after it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cut_dist.online.child import StageEnded
from cut_dist.online.config import OnlineConfig
from cut_dist.online.stage import StageError
from cut_dist.process import UNFINISHED, die_with_parent, free_port

log = logging.getLogger(__name__)

_POLL_S = 0.5
_END_S = 30.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server is on this machine


@contextmanager
def serving(cfg: OnlineConfig, model: str, console: Path, stop_asked: Callable[[], bool]) -> Iterator[str]:
    """Start `generator.serve` on a model and yield the base_url that it answers at; the server ends with the block.

    Args:
        cfg: `generator.serve` is the command, with {model} and {port} in it.
        model: folder or name of the model.
        console: the file that its output is appended to.
        stop_asked: whether the loop is to end; looked at while the server starts.

    Raises:
        StageError: the server ended, or did not answer within `generator.serve_timeout_s`.
        StageEnded: the loop was asked to stop.
    """
    port = free_port()
    command = [part.replace("{model}", model).replace("{port}", str(port)) for part in cfg.generator.serve]
    console.parent.mkdir(parents=True, exist_ok=True)
    with console.open("ab") as out:
        try:
            server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        except OSError as error:
            raise StageError(f"generator.serve: {command[0]} can't be started: {error.strerror}") from error
    try:
        url = f"http://127.0.0.1:{port}/v1"
        _wait_until_up(server, f"{url}/models", cfg.generator.serve_timeout_s, console, stop_asked)
        yield url
    finally:
        _end(server)


def _wait_until_up(
    server: subprocess.Popen, url: str, seconds: float, console: Path, stop_asked: Callable[[], bool]
) -> None:
    began = time.monotonic()
    while not _answers(url):
        if stop_asked():
            raise StageEnded(UNFINISHED)
        if server.poll() is not None:
            raise StageError(f"generator.serve ended with status {server.returncode} before it answered; see {console}")
        if time.monotonic() - began > seconds:
            raise StageError(
                f"generator.serve did not answer at {url} within generator.serve_timeout_s={seconds:g}; see {console}"
            )
        time.sleep(_POLL_S)


def _answers(url: str) -> bool:
    """Whether a server is there: some have no list of models, and some say 503 while they load theirs."""
    try:
        with _DIRECT.open(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def _end(server: subprocess.Popen) -> None:
    """End the server with all that it has started."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(_END_S)
        except subprocess.TimeoutExpired:
            log.warning("generator.serve did not end %g s after SIGTERM and is killed", _END_S)
    try:
        os.killpg(server.pid, signal.SIGKILL)  # what a server leaves of its own workers
    except ProcessLookupError:
        return
    server.wait()
