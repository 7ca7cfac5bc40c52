"""The paper's claims as experiments, with error bars: python launch/study.py (docs/study.md)"""

import sys
from pathlib import Path

# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.cli import hydra_entry  # noqa: E402
from cut_dist.study.config import StudyConfig  # noqa: E402


def study(cfg: StudyConfig) -> int:
    from cut_dist.study.runner import run_study

    return run_study(cfg)


if __name__ == "__main__":
    hydra_entry("study", study, schema=StudyConfig)
