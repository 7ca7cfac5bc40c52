"""Rounds of generate, judge, train and evaluate: python launch/online.py +experiment=online_smoke"""

import sys
from pathlib import Path

# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.cli import hydra_entry  # noqa: E402
from cut_dist.online.config import OnlineConfig  # noqa: E402


def online(cfg: OnlineConfig) -> int:
    from cut_dist.online.rounds import run_rounds

    return run_rounds(cfg)


if __name__ == "__main__":
    hydra_entry("online", online, schema=OnlineConfig)
