"""The numbers that a sweep's jobs can be compared by."""

from __future__ import annotations

from cut_dist.config_check import require
from cut_dist.report import ROWS

VERIFIABLE = "verifiable_"

# What every job reports; where an evaluation measured it there is verifiable_<name> too.
METRICS = (*ROWS, *(f"{name}_before" for name in ROWS), "train_loss", "steps", "tokens_per_s", "seconds")


def require_metric(metric: str) -> None:
    """Raise a ConfigError unless a job of a sweep could have such a number."""
    known = metric in METRICS or metric.startswith(VERIFIABLE)
    require(known, "sweep.metric", metric, f"choose one of {', '.join(METRICS)}, {VERIFIABLE}strict, {VERIFIABLE}loose")
