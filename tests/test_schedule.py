"""The schedules against transformers' own, step by step, and what differs on purpose."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from cut_dist.schedule import SCHEDULES, lr_at

BASE = 3e-4


def theirs(name, warmup, total, steps, **specific):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=specific or None)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def ours(name, warmup, total, steps, floor=0.0):
    settings = {
        "total_steps": total,
        "base_lr": BASE,
        "schedule": name,
        "warmup_steps": warmup,
        "min_lr_ratio": floor,
    }
    return [lr_at(step, **settings) for step in range(steps)]


@pytest.mark.parametrize("warmup", [0, 1, 7, 100])
@pytest.mark.parametrize("name", SCHEDULES)
def test_equal_to_transformers(name, warmup):
    total = 41  # 100 > 41: the paper's rounds are shorter than their warm-up
    assert ours(name, warmup, total, total) == pytest.approx(
        theirs(name, warmup, total, total), rel=1e-12, abs=1e-20
    )


def test_cosine_with_a_floor_is_their_cosine_with_min_lr():
    expected = theirs("cosine_with_min_lr", 5, 60, 60, min_lr_rate=0.1)
    assert ours("cosine", 5, 60, 60, floor=0.1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_a_decay_that_has_ended_stays_at_its_floor(name):
    rates = ours(name, 5, 60, 200, floor=0.1)
    assert rates[60:] == pytest.approx([0.1 * BASE] * 140)
    assert all(a >= b for a, b in zip(rates[5:], rates[6:], strict=False))


def test_values_by_hand():
    # Warm-up of 4 from 0; then half way (step 8 of 4..12) cosine and linear are both at one half.
    for name in ("cosine", "linear"):
        rates = [rate / BASE for rate in ours(name, 4, 12, 13)]
        assert rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1]) and rates[8] == pytest.approx(0.5)
        assert rates[12] == pytest.approx(0, abs=1e-12)
    # Half way to a floor of 0.2: 0.2 + 0.8 / 2.
    assert ours("linear", 4, 12, 9, floor=0.2)[8] / BASE == pytest.approx(0.6)
    # 1/sqrt(step / warmup): at four times the warm-up one half, and never below the floor.
    assert ours("inverse_sqrt", 4, 12, 17)[16] / BASE == pytest.approx(0.5)
    assert ours("inverse_sqrt", 4, 12, 17, floor=0.7)[16] / BASE == pytest.approx(0.7)


def test_degenerate_lengths():
    for name in SCHEDULES:
        assert lr_at(0, total_steps=0, base_lr=BASE, schedule=name) >= 0
        assert lr_at(5, total_steps=5, base_lr=BASE, schedule=name, warmup_steps=5) >= 0


def test_an_unknown_schedule_lists_the_known():
    with pytest.raises(ValueError, match="'cosin'.*cosine, linear, constant"):
        lr_at(0, total_steps=1, base_lr=1.0, schedule="cosin")
