from __future__ import annotations

import numpy as np
import pytest

from cut_dist.data.sampler import Sampler


def ids(sampler: Sampler, steps: range) -> list[int]:
    return [int(i) for step in steps for i in sampler.batch(step)]


def test_each_example_once_an_epoch_also_where_batches_straddle_epochs():
    sampler = Sampler(num_examples=1000, batch_size=7, seed=3, epochs=3, max_steps=None)
    order = ids(sampler, range(sampler.total_steps))
    assert len(order) == 3000
    for epoch in range(3):
        assert sorted(order[epoch * 1000 : (epoch + 1) * 1000]) == list(range(1000))
    assert order[:1000] != order[1000:2000]


def test_any_step_can_be_asked_for_without_the_ones_before():
    straight = Sampler(1000, 7, 3, 3, None)
    order = ids(straight, range(straight.total_steps))
    for cursor in np.random.default_rng(0).integers(0, straight.total_steps, 50):
        resumed = Sampler(1000, 7, 3, 3, None)
        assert ids(resumed, range(cursor, resumed.total_steps)) == order[cursor * 7 :]


def test_the_seed_decides_the_order():
    assert ids(Sampler(50, 5, 1, 1, None), range(10)) == ids(Sampler(50, 5, 1, 1, None), range(10))
    assert ids(Sampler(50, 5, 1, 1, None), range(10)) != ids(Sampler(50, 5, 2, 1, None), range(10))


def test_last_batch_and_max_steps():
    sampler = Sampler(10, 4, 0, 1, None)
    assert [len(sampler.batch(step)) for step in range(sampler.total_steps)] == [4, 4, 2]
    assert Sampler(10, 4, 0, 1, max_steps=7).total_steps == 7
    assert Sampler(10, 4, 0, epochs=0.5, max_steps=None).total_examples == 5


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="no training example"):
        Sampler(0, 4, 0, 1, None)
    with pytest.raises(ValueError, match="step 3 is outside"):
        Sampler(10, 4, 0, 1, None).batch(3)
