"""Means over seeds with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval by Student's t; all three nan where there is no value, low and
    high where there is one alone."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    def apart(self) -> bool:
        """Whether zero lies outside: for a difference, whether it is told from none."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float]) -> Interval:
    """The mean of measurements of independent seeds, one each."""
    from scipy.stats import t

    n = len(values)
    mean = sum(values) / n if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, tuple(values))
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return Interval(mean, mean - half, mean + half, tuple(values))


def difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """a − b over the same seeds in the same order: what the seeds share falls out."""
    return interval([x - y for x, y in zip(a, b, strict=True)])
