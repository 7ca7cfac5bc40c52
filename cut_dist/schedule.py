"""The learning rate as a pure function of the step, under Hugging Face's schedule names."""

from __future__ import annotations

import math
from collections.abc import Callable

_DEFAULT_TIMESCALE = 10_000  # inverse_sqrt without warm-up, as in transformers


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _linear(progress: float) -> float:
    return 1.0 - progress


# Shape of the decay from 1 to 0 over the steps after warm-up, by the share of them that is done.
_DECAYS: dict[str, Callable[[float], float]] = {"cosine": _cosine, "linear": _linear}

SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt")


def lr_at(
    step: int,
    *,
    total_steps: int,
    base_lr: float,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    min_lr_ratio: float = 0.0,
) -> float:
    """Learning rate of the optimizer step that follows `step` finished ones.

    As in transformers, warm-up rises from 0 at step 0 to `base_lr` at `warmup_steps`, and `constant` knows no
    warm-up. Unlike there, a decay that has ended stays at its floor (their cosine rises again past
    `total_steps`).

    Args:
        step: optimizer steps done, 0 or more.
        total_steps: steps of the whole run, warm-up included.
        base_lr: the peak.
        schedule: one of SCHEDULES.
        warmup_steps: steps of linear warm-up.
        min_lr_ratio: floor of the decay as a share of `base_lr`; cosine and linear are scaled to end there,
            inverse_sqrt is cut off there, the constants don't decay.

    Raises:
        ValueError: an unknown schedule; the message lists the known ones.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}: choose one of {', '.join(SCHEDULES)}")
    if schedule == "constant":
        return base_lr
    if step < warmup_steps:
        return base_lr * (step / max(1, warmup_steps))
    if schedule == "constant_with_warmup":
        return base_lr
    if schedule == "inverse_sqrt":
        timescale = warmup_steps or _DEFAULT_TIMESCALE
        factor = 1.0 / math.sqrt((step + timescale - warmup_steps) / timescale)
        return base_lr * max(factor, min_lr_ratio)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return base_lr * (min_lr_ratio + (1.0 - min_lr_ratio) * _DECAYS[schedule](progress))
