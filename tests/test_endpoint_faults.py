"""2,000 judgments over a real socket that fails three times in ten, by a judge that is killed ten times.

What "paid twice" means here: a reply that was kept (committed to the store) is never asked for again, by any later
start. A reply that the server has sent and a kill -9 keeps from being committed can't be known of: there are no more of
these than requests under way at the kill, and each is asked for once more. The test counts both exactly.
"""

from __future__ import annotations

import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import endpoint_run
import pytest
from openai_server import Answer, Server

from cut_dist.judges.base import Judged
from cut_dist.online.records import read_records

COUNT, KILLS, CONCURRENCY = 2000, 10, 16
SCRIPT = Path(endpoint_run.__file__)


def right(path: str, payload: dict[str, Any]) -> Answer:
    number = re.search(r"It is <(\d+)>", payload["messages"][1]["content"])[1]
    return Answer(endpoint_run.expected(int(number)))


def three_in_ten(number: int) -> Answer | None:
    """30 % of the requests fail, each in one of seven ways."""
    draw = random.Random(number).random()
    shares = [
        (0.08, Answer("slow down", status=429)),
        (0.02, Answer("slow down", status=429, headers={"Retry-After": "0.2"})),
        (0.07, Answer("oops", status=500)),
        (0.06, Answer("half of this", drop=True)),
        (0.005, Answer("too late", delay=60)),  # longer than the client's patience
        (0.035, Answer(raw=b'{"choices": [{"mess', delay=0.05)),
        (0.03, Answer(raw=b"<html>bad gateway</html>")),
    ]
    for share, answer in shares:
        if draw < share:
            return answer
        draw -= share
    return None


def start(server: Server, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), server.base_url, str(folder / "store.sqlite"), str(folder / "judgments")]
    return subprocess.Popen([*command, str(COUNT), "timeout_s=5"], stdout=subprocess.PIPE, text=True)


def wait_for_rows(folder: Path, number: int) -> None:
    output, deadline = folder / "judgments", time.monotonic() + 30
    while not output.exists() or output.read_bytes().count(b"\n") < number:
        assert time.monotonic() < deadline, "no judgments are written down"
        time.sleep(0.01)


def kept_keys(folder: Path) -> set[str]:
    with sqlite3.connect(folder / "store.sqlite") as database:
        return {key for (key,) in database.execute("SELECT key FROM replies")}


def settle(server: Server) -> None:
    """Wait until the server is done with everything that a killed client had sent."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        before = len(server.seen)
        time.sleep(0.05)
        if server.under_way == 0 and len(server.seen) == before:
            return
    raise AssertionError("the server is still at it")


def kill_at_some_moment(server: Server, folder: Path, rng: random.Random) -> tuple[set[str], set[str], int]:
    """Start, kill after so many replies and so many milliseconds. Returns the keys kept, those lost, and the moment."""
    answered_before = Counter(server.outcomes("answered"))
    process = start(server, folder)
    try:
        assert process.stdout.readline() == "started\n"
        target = answered_before.total() + rng.randint(10, 150)
        while len(server.outcomes("answered")) < target and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.02))
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
    settle(server)
    kept = kept_keys(folder)
    lost = set(Counter(server.outcomes("answered")) - answered_before) - kept
    return kept, lost, len(server.seen)


@pytest.mark.timeout(180)
def test_2000_judgments_with_30_percent_failures_and_ten_kills(tmp_path: Path):
    rng = random.Random(4)
    with Server(right, three_in_ten, latency=0.05) as server:
        kills = [kill_at_some_moment(server, tmp_path, rng) for _ in range(KILLS)]
        process = start(server, tmp_path)
        output, _ = process.communicate(timeout=150)
    assert process.returncode == 0 and "done" in output

    # All there, all right.
    judged = {row.id: (row.satisfactory, row.judgment) for row in read_records(tmp_path / "judgments", Judged)}
    words = {f"r{number}": endpoint_run.expected(number) for number in range(COUNT)}
    assert judged == {id: (True, None) if said == "Perfect." else (False, said) for id, said in words.items()}

    # Nothing that was kept was asked for again; what was lost at a kill was, once.
    for kept, _, moment in kills:
        assert not kept & {each.key for each in server.seen[moment:]}
    lost = Counter(key for _, keys, _ in kills for key in keys)
    paid = Counter(server.outcomes("answered"))
    assert paid == Counter(set(paid)) + lost and len(paid) == COUNT
    assert all(len(keys) <= CONCURRENCY for _, keys, _ in kills)
    print(f"{len(server.seen):,} requests; replies sent but not kept at the ten kills: {[len(k[1]) for k in kills]}")

    # The faults were there.
    failed = sum(each.outcome not in ("answered", "under way") for each in server.seen)
    assert 0.25 < failed / len(server.seen) < 0.36


def test_sigterm_and_ctrl_c_end_cleanly_and_keep_replies_under_way(tmp_path: Path):
    for number, sign in enumerate((signal.SIGTERM, signal.SIGINT), 1):
        with Server(right, latency=0.2) as server:
            process = start(server, tmp_path)
            assert process.stdout.readline() == "started\n"
            wait_for_rows(tmp_path, 5 * number)
            process.send_signal(sign)
            process.communicate(timeout=20)
            assert process.returncode in (128 + signal.SIGTERM, 1, -signal.SIGINT)
            settle(server)
            answered = server.outcomes("answered")
            assert set(answered) <= kept_keys(tmp_path)
            assert set(server.outcomes("gone")) == set()  # no request was dropped that might be paid for
        assert len(read_records(tmp_path / "judgments", Judged)) < COUNT
