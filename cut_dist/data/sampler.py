"""Which examples make up the global batch of a step: a pure function of (seed, step), whatever the ranks."""

from __future__ import annotations

import math

import numpy as np


class Sampler:
    """Global batches over shuffled epochs laid end to end.

    Nothing here has state, so a resumed run, or one on another number of ranks, sees the same batches. A batch may
    straddle two epochs; each example is seen once per epoch. The last batch of a run may be smaller.

    Args:
        num_examples: size of the training set.
        batch_size: examples in one global batch (all ranks, all micro-batches).
        seed: seed of the shuffles.
        epochs: passes over the data; fractions allowed.
        max_steps: a bound on the number of steps, or None for the epochs alone. With `max_steps` above what the
            epochs give, further epochs follow.

    Raises:
        ValueError: if there is no example.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int, epochs: float, max_steps: int | None):
        if num_examples < 1:
            raise ValueError("there is no training example left to sample from: see the counts of the data log")
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        if max_steps is None:
            self.total_examples = max(1, round(epochs * num_examples))
        else:
            self.total_examples = max_steps * batch_size
        self.total_steps = math.ceil(self.total_examples / batch_size)

    def epoch_order(self, epoch: int) -> np.ndarray:
        """The order of epoch `epoch`: a permutation of (num_examples,) int64."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_examples)

    def batch(self, step: int) -> np.ndarray:
        """Indices of the examples of step `step` (counted from 0), int64, at most `batch_size` of them."""
        if not 0 <= step < self.total_steps:
            raise ValueError(f"step {step} is outside the run's {self.total_steps} steps")
        first = step * self.batch_size
        positions = np.arange(first, min(first + self.batch_size, self.total_examples))
        epochs = positions // self.num_examples
        orders = {epoch: self.epoch_order(epoch) for epoch in np.unique(epochs)}
        return np.array([orders[epoch][position % self.num_examples] for epoch, position in zip(epochs, positions)])
