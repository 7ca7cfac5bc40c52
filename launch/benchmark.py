"""Measure the loss and the training step against others: python launch/benchmark.py suite=kernel device=auto"""

import os
import sys
from pathlib import Path

# Before torch is imported: its profiler announces each start and end on stderr otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
# A checkout works without being installed, and is what runs even where another version is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cut_dist.benchmark.config import BenchmarkJobConfig  # noqa: E402
from cut_dist.cli import hydra_entry  # noqa: E402


def benchmark(cfg: BenchmarkJobConfig) -> int | None:
    from cut_dist.benchmark.job import benchmark as run  # torch, once the configuration is known to be good

    return run(cfg)


if __name__ == "__main__":
    hydra_entry("benchmark", benchmark, schema=BenchmarkJobConfig)
