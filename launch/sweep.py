"""Train every combination of some values, several jobs at a time: python launch/sweep.py +experiment=sweep_smoke"""

import sys
from pathlib import Path

# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.cli import hydra_entry  # noqa: E402
from cut_dist.sweep.orchestrate import orchestrate  # noqa: E402

if __name__ == "__main__":
    # A command of one job is `deepspeed launch/train.py`; here -m goes without saying.
    hydra_entry("train", lambda cfg: None, argv=["-m", *sys.argv[1:]], sweep=orchestrate)
