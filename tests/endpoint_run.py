"""A judge at work in a process of its own, to be killed: endpoint_run.py BASE_URL STORE OUTPUT COUNT [KEY=VALUE ...]

It judges COUNT responses and appends every judgment to OUTPUT as launch/judge.py does. The right verdict of response n
is a function of n alone (`expected`), which the test's server knows too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.endpoint.config import EndpointConfig  # noqa: E402
from cut_dist.judges.base import Judged, JudgeRequest  # noqa: E402
from cut_dist.judges.config import JudgeConfig  # noqa: E402
from cut_dist.judges.endpoint import EndpointJudge  # noqa: E402
from cut_dist.online.records import RecordLog  # noqa: E402


def requests(count: int) -> list[JudgeRequest]:
    """What is judged: the response says its number."""
    return [
        JudgeRequest(
            f"r{n}",
            [{"role": "user", "content": f"Say the number {n}."}, {"role": "assistant", "content": f"It is <{n}>."}],
        )
        for n in range(count)
    ]


def expected(number: int) -> str:
    """The judge's right words on response `number`."""
    return "Perfect." if number % 3 else f"The number {number} should stand in words."


def config(base_url: str, store: str, **endpoint: Any) -> JudgeConfig:
    reach = {"base_url": base_url, "model": "judge", "concurrency": 16, "timeout_s": 2.0, **endpoint}
    return JudgeConfig(name="endpoint", cache=store, max_new_tokens=64, endpoint=EndpointConfig(**reach))


def main(base_url: str, store: str, output: str, count: str, *settings: str) -> None:
    pairs = (text.split("=") for text in settings)
    cfg = config(base_url, store, **{key: int(value) if value.isdigit() else float(value) for key, value in pairs})
    judge = EndpointJudge(cfg, account="test")
    with RecordLog(Path(output), Judged) as log:
        left = [request for request in requests(int(count)) if request.id not in log.rows]
        print("started", flush=True)
        for judged in judge.judge(left):
            log.append([judged])
    print("done", judge.summary, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
