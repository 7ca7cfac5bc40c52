"""How a sweep's jobs are shown in a row of a table, in the terminal and on the page alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cut_dist.report import ROWS
from cut_dist.sweep.metric import VERIFIABLE
from cut_dist.sweep.results import JobResult, SweepResult

_SYMBOLS = {"objective.lam": "λ", "objective.alpha": "α", "objective.gamma": "γ"}
_SHORT = {
    "loss": "loss",
    "share_inappropriate": "share inappr.",
    "p_inappropriate": "p inappr.",
    "p_others": "p others",
    "train_loss": "train loss",
    "tokens_per_s": "tok/s",
}


def key_labels(keys: Sequence[str]) -> dict[str, str]:
    """Swept keys as a reader knows them: λ, α, γ, else the last part of the key where that is not ambiguous."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: _SYMBOLS.get(key, name if last.count(name) == 1 else key) for key, name in zip(keys, last)}


def metric_label(name: str) -> str:
    """What a metric's name says to a reader."""
    if name.startswith(VERIFIABLE):
        return f"verifiable accuracy, {name.removeprefix(VERIFIABLE).replace('_', ' ')}"
    stem, before = name.removesuffix("_before"), name.endswith("_before")
    label = ROWS.get(stem, _SHORT.get(stem, stem.replace("_", " "))).strip()
    return f"{label}, before" if before else label


def short_label(name: str) -> str:
    """The same for the head of a narrow column, and for a sentence."""
    return _SHORT.get(name, name.replace(VERIFIABLE, "acc. ").replace("_", " "))


def settings(job: JobResult, keys: Sequence[str]) -> str:
    """A job's swept values in words: "λ 1.1, α 0.5"; its name where there is none."""
    labels = key_labels(keys)
    return ", ".join(f"{labels[key]} {job.overrides.get(key, '')}" for key in keys) or job.name


def shown_metrics(sweep: SweepResult, metric: str) -> list[str]:
    """The columns of a ranking: `metric` first, then what tells most of a job, as far as any job has it."""
    measured = sorted({name for job in sweep.jobs for name in job.numbers if name.startswith(VERIFIABLE)})
    names = [metric, "loss", *measured, "share_inappropriate", "p_inappropriate", "p_others", "train_loss"]
    return [name for name in dict.fromkeys(names) if name == metric or any(name in job.numbers for job in sweep.jobs)]


def ordered(sweep: SweepResult, placed: dict[int, int]) -> list[JobResult]:
    """The jobs that have a rank, the best first, then the others in their own order."""
    jobs = {job.index: job for job in sweep.jobs}
    return [*(jobs[index] for index in placed), *(job for job in sweep.jobs if job.index not in placed)]


def number(value: float | None) -> str:
    """Four digits that count, and nothing where there is nothing."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds as "47 s", "12 min" or "3.2 h"."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
