"""Run by test_sweep_train.py: launch/train.py, where rank 1 of the job named FAILING_JOB raises in its second step."""

from __future__ import annotations

import os

from cut_dist.cli import hydra_entry
from cut_dist.config import Config
from cut_dist.sweep.supervise import supervise


def train(cfg: Config) -> int:
    from cut_dist import train as training

    accumulate, calls = training.accumulate, []

    def spoiled(engine, micro_batches, cfg, ranks, shape):
        calls.append(1)
        if len(calls) == 2 and ranks.rank == 1 and cfg.run.name == os.environ["FAILING_JOB"]:
            raise ZeroDivisionError("made to fail")
        return accumulate(engine, micro_batches, cfg, ranks, shape)

    training.accumulate = spoiled
    return training.train(cfg)


if __name__ == "__main__":
    hydra_entry("train", train, sweep=supervise)
