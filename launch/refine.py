"""Have a model improve responses by their judgments: launch/refine.py stage.input=triplets.jsonl stage.output=..."""

import sys
from pathlib import Path

# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.cli import hydra_entry  # noqa: E402
from cut_dist.online.config import OnlineConfig  # noqa: E402
from cut_dist.preflight import require_port  # noqa: E402


def refine(cfg: OnlineConfig) -> int:
    source, output = cfg.stage.files()
    require_port()
    from cut_dist.online.refining import refine_stage

    return refine_stage(cfg, source, output)


if __name__ == "__main__":
    hydra_entry("online", refine, schema=OnlineConfig)
