"""The numbers that a sweep's jobs can be compared by."""

from __future__ import annotations

from cut_dist.config_check import require
from cut_dist.report import ROWS

VERIFIABLE = "verifiable_"

# What every job reports; where an evaluation measured it there is verifiable_<name> too.
METRICS = (*ROWS, *(f"{name}_before" for name in ROWS), "train_loss", "steps", "tokens_per_s", "seconds")


def is_metric(name: str) -> bool:
    """Whether a job of a sweep could have such a number."""
    return name in METRICS or name.startswith(VERIFIABLE)


def require_metric(metric: str) -> None:
    """Raise a ConfigError unless a job of a sweep could have such a number."""
    choices = f"choose one of {', '.join(METRICS)}, {VERIFIABLE}strict, {VERIFIABLE}loose"
    require(is_metric(metric), "sweep.metric", metric, choices)
