"""Measure a model: python launch/evaluate.py model.name_or_path=runs/x/y/model stage.input=x.jsonl stage.output=out"""

import sys
from pathlib import Path

# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.cli import hydra_entry  # noqa: E402
from cut_dist.evaluation import driver  # noqa: E402
from cut_dist.online.config import OnlineConfig  # noqa: E402


def evaluate(cfg: OnlineConfig) -> int:
    driver.require_inputs(cfg)
    return driver.evaluate(cfg)


if __name__ == "__main__":
    hydra_entry("online", evaluate, schema=OnlineConfig)
