"""Judge responses: python launch/judge.py judge=verifiable stage.input=responses.jsonl stage.output=judgments.jsonl"""

import sys
from pathlib import Path

# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.cli import hydra_entry  # noqa: E402
from cut_dist.online.config import OnlineConfig  # noqa: E402


def judge(cfg: OnlineConfig) -> None:
    from cut_dist.online.judging import run_judging

    run_judging(cfg, *cfg.stage.files())


if __name__ == "__main__":
    hydra_entry("online", judge, schema=OnlineConfig)
