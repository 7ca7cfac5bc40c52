"""Means over seeds with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval by Student's t; all three nan where there is no value, low and
    high where there is one alone. `seeds` are those that the values are of, in their order."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]
    seeds: tuple[int, ...]

    def apart(self) -> bool:
        """Whether zero lies outside: for a difference, whether it is told from none."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float], seeds: Sequence[int] | None = None) -> Interval:
    """The mean of measurements of independent seeds, one each.

    Args:
        seeds: whose measurements they are; None counts them from 0.
    """
    from scipy.stats import t

    n = len(values)
    own = tuple(range(n) if seeds is None else seeds)
    mean = sum(values) / n if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, tuple(values), own)
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return Interval(mean, mean - half, mean + half, tuple(values), own)


def difference(a: Interval, b: Interval) -> Interval:
    """a − b over the seeds that both were measured for: what a seed does to both falls out."""
    of_a, of_b = dict(zip(a.seeds, a.values, strict=True)), dict(zip(b.seeds, b.values, strict=True))
    common = sorted(of_a.keys() & of_b.keys())
    return interval([of_a[seed] - of_b[seed] for seed in common], common)
