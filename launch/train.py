"""Train a model by Contrastive Unlikelihood Training: deepspeed launch/train.py +experiment=quickstart"""

import sys
from pathlib import Path

# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.cli import hydra_entry  # noqa: E402
from cut_dist.config import Config  # noqa: E402
from cut_dist.preflight import require_inputs, require_port  # noqa: E402
from cut_dist.sweep.supervise import supervise  # noqa: E402


def train(cfg: Config) -> int:
    require_inputs(cfg)
    require_port()
    from cut_dist.train import train as run  # torch and DeepSpeed, once the configuration is known to be good

    return run(cfg)


if __name__ == "__main__":
    hydra_entry("train", train, sweep=supervise)
