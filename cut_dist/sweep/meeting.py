"""Where the ranks' supervisors agree: rank 0 listens on MASTER_ADDR:MASTER_PORT, the others call; JSON lines on TCP.

Nothing that is said here names a command or a program: orders are a word, a job's number and a port.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cut_dist.config_check import ConfigError
from cut_dist.preflight import port_taken

GATHER_S = 600.0  # imports from a busy shared disk, and rank 0 has the whole sweep to compose
_LONGEST = 1 << 16  # bytes of a line
_RETRY_S = 0.3
_ANSWER_S = 5.0  # in which rank 0, if that is who listens, says welcome

Message = dict[str, Any]


class Lost(ConnectionError):
    """The supervisor of a rank is gone, or does not speak as one."""

    def __init__(self, rank: int, why: str = "closed its connection"):
        super().__init__(f"rank {rank}'s supervisor {why}")
        self.rank = rank


class _Peer:
    """A connection that carries JSON objects, one a line."""

    def __init__(self, sock: socket.socket, rank: int = -1):
        self.rank, self._socket, self._received = rank, sock, b""
        # A host that loses power says nothing: after two minutes of silence we ask, after three it is lost
        options = {"TCP_KEEPIDLE": 120, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 180_000}
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def fileno(self) -> int:
        return self._socket.fileno()

    def tell(self, message: Message) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise Lost(self.rank, f"can't be reached ({error.strerror})") from error

    def receive(self) -> list[Message]:
        """What has arrived; blocks if nothing has."""
        try:
            data = self._socket.recv(_LONGEST)
        except OSError as error:
            raise Lost(self.rank, f"can't be reached ({error.strerror})") from error
        if not data:
            raise Lost(self.rank)
        *lines, self._received = (self._received + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError as error:
            raise Lost(self.rank, "speaks another language") from error
        if len(self._received) > _LONGEST or not all(isinstance(message, dict) for message in messages):
            raise Lost(self.rank, "speaks another language")
        return messages

    def close(self) -> None:
        self._socket.close()


class Leader:
    """Rank 0's end: gathers the other ranks, tells all of them, hears each.

    Args:
        address: MASTER_ADDR.
        port: MASTER_PORT.
        world_size: ranks, this one included.
        sweep: what tells this command from others; a caller with another is sent away.
        stop_asked: whether there is no more need to wait.
        timeout: seconds to wait for all.

    Raises:
        ConfigError: something else listens there.
        Lost: a rank has not called in time, or before this process was told to stop.
    """

    def __init__(
        self,
        address: str,
        port: int,
        world_size: int,
        sweep: str,
        stop_asked: Callable[[], bool],
        timeout: float = GATHER_S,
    ):
        self._peers: dict[int, _Peer] = {}
        self._early: list[tuple[int, Message]] = []  # what a rank says before all are here
        self._selector = selectors.DefaultSelector()
        deadline = time.monotonic() + timeout
        expected = set(range(1, world_size))
        with _listen(address, port) as listener:
            self._gather(listener, expected, sweep, lambda: stop_asked() or time.monotonic() > deadline)

    def _gather(self, listener: socket.socket, expected: set[int], sweep: str, over: Callable[[], bool]) -> None:
        self._selector.register(listener, selectors.EVENT_READ)
        strangers: list[_Peer] = []
        while expected - set(self._peers):
            if over():
                raise Lost(min(expected - set(self._peers)), "has not called; do all nodes reach MASTER_ADDR?")
            for key, _ in self._selector.select(0.5):
                if key.fileobj is listener:
                    peer = _Peer(listener.accept()[0])
                    strangers.append(peer)
                    self._selector.register(peer, selectors.EVENT_READ)
                elif key.fileobj.rank < 0:
                    self._welcome(key.fileobj, expected, sweep)
                else:
                    self._early += [(key.fileobj.rank, message) for message in key.fileobj.receive()]
        self._selector.unregister(listener)
        for peer in strangers:
            if peer.rank < 0 and peer.fileno() >= 0:
                self._selector.unregister(peer)
                peer.close()

    def _welcome(self, peer: _Peer, expected: set[int], sweep: str) -> None:
        try:
            [hello] = peer.receive()
            if hello.get("sweep") != sweep or hello.get("rank") not in expected - set(self._peers):
                raise ValueError
            peer.tell({"sweep": sweep})
        except (Lost, TypeError, ValueError):  # not one of ours, or half a line, which ours do not send
            self._selector.unregister(peer)
            peer.close()
            return
        peer.rank = hello["rank"]
        self._peers[peer.rank] = peer

    def tell(self, message: Message) -> None:
        """Send to all other ranks. Raises Lost, after all have been told who can be."""
        lost = None
        for peer in self._peers.values():
            try:
                peer.tell(message)
            except Lost as error:
                lost = error
        if lost:
            raise lost

    def poll(self, timeout: float) -> list[tuple[int, Message]]:
        """What the others say within `timeout` seconds, with who says it. Raises Lost."""
        heard, self._early = self._early, []
        for key, _ in self._select(timeout):
            heard += [(key.fileobj.rank, message) for message in key.fileobj.receive()]
        return heard

    def dismiss(self, message: Message, timeout: float) -> None:
        """Send a last message and wait until the others have hung up."""
        with suppress(Lost):
            self.tell(message)
        deadline = time.monotonic() + timeout
        while self._selector.get_map() and time.monotonic() < deadline:
            for key, _ in self._select(0.2):
                try:
                    key.fileobj.receive()
                except Lost:
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()

    def _select(self, timeout: float) -> list:
        if not self._selector.get_map():
            time.sleep(timeout)
        return self._selector.select(timeout)


class Follower:
    """Another rank's end: calls rank 0 until it answers, then hears orders and tells.

    Args: as for the Leader.

    Raises:
        Lost: rank 0 has not answered in `timeout` seconds, or before this process was told to stop.
    """

    def __init__(
        self,
        address: str,
        port: int,
        rank: int,
        sweep: str,
        stop_asked: Callable[[], bool],
        timeout: float = GATHER_S,
    ):
        deadline = time.monotonic() + timeout
        while (answered := self._call(address, port, rank, sweep)) is None:
            if stop_asked() or time.monotonic() > deadline:
                raise Lost(0, f"does not answer at {address}:{port}")
            time.sleep(_RETRY_S)
        self._peer, self._early = answered
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._peer, selectors.EVENT_READ)

    @staticmethod
    def _call(address: str, port: int, rank: int, sweep: str) -> tuple[_Peer, list[Message]] | None:
        """Rank 0, and the orders that came in one packet with its welcome; None if it is not there yet."""
        try:
            sock = socket.create_connection((address, port), timeout=_ANSWER_S)
        except OSError:
            return None
        peer = _Peer(sock, rank=0)
        try:
            peer.tell({"rank": rank, "sweep": sweep})
            while not (answer := peer.receive()):  # half a line
                pass
        except Lost:  # also a listener that says nothing: what is left of an earlier run
            answer = []
        if answer[:1] != [{"sweep": sweep}]:
            peer.close()
            return None
        sock.settimeout(None)
        return peer, answer[1:]

    def tell(self, message: Message) -> None:
        """Send to rank 0. Raises Lost."""
        self._peer.tell(message)

    def poll(self, timeout: float) -> list[Message]:
        """Orders that arrive within `timeout` seconds. Raises Lost."""
        if early := self._early:
            self._early = []
            return early
        return self._peer.receive() if self._selector.select(timeout) else []

    def close(self) -> None:
        self._peer.close()


def _listen(address: str, port: int) -> socket.socket:
    """Listen where the others call; on all addresses where this host does not know `address` as its own."""
    for host in (address, ""):
        try:
            return socket.create_server((host, port), reuse_port=False)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(port_taken()) from error
            if host == "" or error.errno not in (errno.EADDRNOTAVAIL, socket.EAI_NONAME):
                raise
    raise AssertionError("unreachable")
