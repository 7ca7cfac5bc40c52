"""Show a few triplets as the trainer sees them: python launch/preview.py +experiment=quickstart"""

import sys
from pathlib import Path

# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.cli import hydra_entry  # noqa: E402
from cut_dist.config import PreviewJobConfig  # noqa: E402
from cut_dist.preflight import require_inputs  # noqa: E402


def preview(cfg: PreviewJobConfig) -> int | None:
    require_inputs(cfg)
    from cut_dist.preview.job import preview as run  # torch, once the configuration is known to be good

    return run(cfg)


if __name__ == "__main__":
    hydra_entry("preview", preview, schema=PreviewJobConfig)
