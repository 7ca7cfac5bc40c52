"""The supervisors' meeting: who is let in, what is heard, and what a lost connection does."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import closing

import pytest

from cut_dist.config_check import ConfigError
from cut_dist.process import free_port
from cut_dist.sweep.meeting import Follower, Leader, Lost

HERE = "127.0.0.1"


def never() -> bool:
    return False


class Calls:
    """Followers in threads, and the leader in this one."""

    def __init__(self, ranks: int = 2):
        self.port, self.ranks, self.followers, self.threads = free_port(), ranks, {}, []

    def call(self, rank: int, sweep: str = "ours", timeout: float = 20) -> None:
        def run():
            try:
                self.followers[rank] = Follower(HERE, self.port, rank, sweep, never, timeout)
            except Lost as error:
                self.followers[rank] = error

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def lead(self, timeout: float = 20, stop=never) -> Leader:
        leader = Leader(HERE, self.port, self.ranks, "ours", stop, timeout)
        for thread in self.threads:
            thread.join()
        return leader


@pytest.fixture
def calls():
    made = Calls()
    yield made
    for thread in made.threads:
        thread.join(timeout=30)
    for follower in made.followers.values():
        if isinstance(follower, Follower):
            follower.close()


def heard(leader: Leader) -> list:
    for _ in range(50):
        if messages := leader.poll(0.1):
            return messages
    raise AssertionError("nothing heard")


def test_orders_and_answers_arrive_whole_and_in_order(calls):
    calls.ranks = 3
    for rank in (1, 2):
        calls.call(rank)
    leader = calls.lead()
    for number in range(100):
        leader.tell({"do": "x" * number, "number": number})
    for follower in calls.followers.values():
        got = []
        while len(got) < 100:
            got += follower.poll(5)
        assert [message["number"] for message in got] == list(range(100))
    calls.followers[2].tell({"ended": 0})
    assert heard(leader) == [(2, {"ended": 0})]
    for follower in calls.followers.values():
        follower.close()
    began = time.monotonic()
    leader.dismiss({"do": "end"}, 10)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("cut", [None, 5])
def test_orders_that_come_in_one_packet_with_the_welcome_are_heard(calls, cut):
    said = json.dumps({"sweep": "ours"}) + "\n" + json.dumps({"do": "start"}) + "\n" + json.dumps({"do": "stop"}) + "\n"
    with socket.create_server((HERE, calls.port)) as listener:
        calls.call(1)
        with closing(listener.accept()[0]) as leader:
            leader.sendall(said.encode()[:cut])
            time.sleep(0.2)
            leader.sendall(said.encode()[len(said) if cut is None else cut :])
            calls.threads[0].join()
            follower, got = calls.followers[1], []
            while len(got) < 2:
                got += follower.poll(5)
            assert got == [{"do": "start"}, {"do": "stop"}]
            assert follower.poll(0.1) == []


def test_a_follower_may_call_long_before_rank_0_listens_and_speak_before_all_are_here(calls):
    calls.ranks = 3
    calls.call(1)
    time.sleep(0.5)
    early = threading.Thread(target=lambda: (calls.threads[0].join(), calls.followers[1].tell({"stop": True}),
                                             time.sleep(0.5), calls.call(2)))  # fmt: skip
    early.start()
    leader = calls.lead()
    early.join()
    assert heard(leader) == [(1, {"stop": True})]


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n", b"[1]\n", b'{"rank": 1}\n', b'{"rank": 1, "sweep": "another"}\n',
     b'{"rank": 0, "sweep": "ours"}\n', b'{"rank": "1", "sweep": "ours"}\n', b'{"rank": 9, "sweep": "ours"}\n',
     b'{"rank": [1], "sweep": "ours"}\n'],
)  # fmt: skip
def test_a_stranger_is_sent_away_and_the_rank_still_gets_in(calls, said):
    def stranger():
        for _ in range(100):
            try:
                with socket.create_connection((HERE, calls.port), timeout=5) as sock:
                    sock.sendall(said)
                    calls.call(1)
                    if said:
                        assert sock.recv(100) == b""
                    return
            except ConnectionRefusedError:
                time.sleep(0.05)

    thread = threading.Thread(target=stranger)
    thread.start()
    leader = calls.lead()
    thread.join()
    for each in calls.threads:
        each.join()
    leader.tell({"do": "end"})
    assert calls.followers[1].poll(5) == [{"do": "end"}]


def test_the_second_caller_of_a_rank_is_sent_away(calls):
    calls.ranks = 3
    calls.call(1)

    def others():
        calls.threads[0].join()
        with pytest.raises(Lost):
            Follower(HERE, calls.port, 1, "ours", never, timeout=0.5)
        calls.call(2)

    thread = threading.Thread(target=others)
    thread.start()
    calls.lead()
    thread.join()


def test_a_listener_that_is_not_rank_0_is_not_taken_for_it(calls):
    with closing(socket.create_server((HERE, calls.port))) as stale:
        def answer():
            connection, _ = stale.accept()
            connection.sendall(json.dumps({"sweep": "another"}).encode() + b"\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        calls.call(1)
        thread.join()
    leader = calls.lead()
    assert isinstance(calls.followers[1], Follower)
    leader.tell({"do": "end"})


def test_a_taken_port_is_said(calls, monkeypatch):
    monkeypatch.setenv("MASTER_PORT", str(calls.port))
    with closing(socket.create_server((HERE, calls.port))), pytest.raises(ConfigError, match="is taken"):
        calls.lead()


def test_waiting_has_an_end_on_both_sides(calls):
    with pytest.raises(Lost, match="rank 1's supervisor has not called"):
        calls.lead(timeout=0.6)
    with pytest.raises(Lost, match="rank 0's supervisor does not answer"):
        Follower(HERE, calls.port, 1, "ours", never, timeout=0.5)
    with pytest.raises(Lost):
        calls.lead(stop=lambda: True)
    with pytest.raises(Lost):
        Follower(HERE, calls.port, 1, "ours", lambda: True)


def test_a_rank_that_hangs_up_is_lost_and_named(calls):
    calls.ranks = 3
    calls.call(1)
    calls.call(2)
    leader = calls.lead()
    calls.followers[2].close()
    with pytest.raises(Lost, match="rank 2's supervisor closed its connection"):
        heard(leader)


def test_rank_0_that_hangs_up_is_lost(calls):
    calls.call(1)
    leader = calls.lead()
    for peer in leader._peers.values():
        peer.close()
    with pytest.raises(Lost, match="rank 0's supervisor closed its connection"):
        calls.followers[1].poll(5)
