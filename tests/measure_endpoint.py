"""Measure the endpoint judge against a local server: python tests/measure_endpoint.py docs/results/endpoint_judge.json

1. Nothing fails: judgments a second against what the concurrency limit allows, `concurrency / latency`.
2. Three requests in ten fail: the share of the time in which the slots are taken, and judgments a second.
3. Ten kill -9 at random moments: replies that the server had sent and the judge had not kept.

The server runs in a process of its own. Times mean something on a quiet machine only; its load is written down.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import endpoint_run  # noqa: E402
import test_endpoint_faults as faults  # noqa: E402
import torch  # noqa: E402
from openai_server import Server  # noqa: E402

from cut_dist.benchmark.machine import describe  # noqa: E402
from cut_dist.judges.endpoint import EndpointJudge  # noqa: E402

CONCURRENCY = 16


def serve(pipe: Connection, latency: float, failing: bool) -> None:
    """Serve until asked for what happened: seconds that requests were under way in all, and outcomes."""
    with Server(faults.right, faults.three_in_ten if failing else lambda number: None, latency) as server:
        pipe.send(server.base_url)
        pipe.recv()
        outcomes = Counter(each.outcome for each in server.seen)
        pipe.send((sum(each.until - each.at for each in server.seen), outcomes, server.most_under_way))


def one_run(count: int, latency: float, failing: bool) -> dict[str, Any]:
    """Judge `count` responses in this process."""
    here, there = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=serve, args=(there, latency, failing))
    process.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            judge = EndpointJudge(endpoint_run.config(here.recv(), f"{folder}/store.sqlite", timeout_s=5.0))
            begin, cpu = time.perf_counter(), time.process_time()
            arrived = [time.perf_counter() - begin for _ in judge.judge(endpoint_run.requests(count))]
            cpu = time.process_time() - cpu
        here.send("done")
        busy, outcomes, most = here.recv()
    finally:
        process.join(10)
    assert len(arrived) == count and most <= CONCURRENCY
    allowed = CONCURRENCY / latency
    return {
        "judgments": count,
        "latency_s": latency,
        "concurrency": CONCURRENCY,
        "seconds": round(arrived[-1], 3),
        "judgments_per_s": round(count / arrived[-1], 1),
        "allowed_per_s": allowed,
        "share_of_allowed": round(count / arrived[-1] / allowed, 4),
        "slots_taken": round(busy / (CONCURRENCY * arrived[-1]), 4),
        "client_cpu_ms_per_judgment": round(1000 * cpu / count, 2),
        "requests": dict(outcomes),
    }


def kills() -> dict[str, Any]:
    """As in test_endpoint_faults.py."""
    rng = random.Random(7)
    with tempfile.TemporaryDirectory() as name, Server(faults.right, faults.three_in_ten, latency=0.1) as server:
        folder = Path(name)
        killed = [faults.kill_at_some_moment(server, folder, rng) for _ in range(faults.KILLS)]
        process = faults.start(server, folder)
        process.communicate(timeout=300)
        paid = Counter(server.outcomes("answered"))
    asked_again = sum(len(kept & {each.key for each in server.seen[moment:]}) for kept, _, moment in killed)
    return {
        "kills": faults.KILLS,
        "judgments": len(paid),
        "kept_replies_asked_for_again": asked_again,
        "sent_but_not_kept_at_each_kill": [len(lost) for _, lost, _ in killed],
        "replies_paid_for": paid.total(),
    }


def main(target: str) -> None:
    result = {
        "command": "python tests/measure_endpoint.py",
        "machine": describe(torch.device("cpu")),
        "nothing_fails": [one_run(*each, failing=False) for each in ((2000, 0.05), (2000, 0.2), (640, 1.0))],
        "30_percent_fail": [one_run(2000, 0.2, failing=True)],
        "killed_ten_times": kills(),
    }
    Path(target).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "machine"}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
