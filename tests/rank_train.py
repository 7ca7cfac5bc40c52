"""Run by test_train.py: a training in which some steps go wrong on purpose.

Usage: rank_train.py KIND STEPS OVERRIDE...   with KIND = not_finite | raise_on_rank_1, STEPS = comma-separated calls
"""

from __future__ import annotations

import sys

from cut_dist import train as training
from cut_dist.cli import hydra_entry

kind, steps, *overrides = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]
bad_calls = {int(number) for number in steps.split(",")}
calls = 0
accumulate = training.accumulate


def spoiled(engine, micro_batches, cfg, ranks, shape):
    global calls
    calls += 1
    sums = accumulate(engine, micro_batches, cfg, ranks, shape)
    if calls in bad_calls and kind == "not_finite":
        sums[training.NOT_FINITE] = 1
    if calls in bad_calls and kind == "raise_on_rank_1" and ranks.rank == 1:
        raise ZeroDivisionError("made to fail")
    return sums


training.accumulate = spoiled
hydra_entry("train", training.train, argv=overrides)
