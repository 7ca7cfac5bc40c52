"""What the jobs of a sweep came to: read from their folders, ranked, and written as results.csv."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cut_dist import durable
from cut_dist.metrics import MetricsError, read_metrics
from cut_dist.report import ROWS
from cut_dist.sweep.folder import JOB_FILE, SWEEP_FILE
from cut_dist.sweep.metric import METRICS, VERIFIABLE, is_metric
from cut_dist.wording import UserError

EVALUATION_FILE, RESULTS_FILE = "evaluation.json", "results.csv"

Direction = Literal["min", "max"]


class SweepError(UserError, RuntimeError):
    """A folder is no sweep's, or a sweep can't be ranked as asked; the message says what to do."""


@dataclass(frozen=True)
class JobResult:
    """One job of a sweep.

    Attributes:
        overrides: swept key → value, as text.
        status: waiting | running | finished | failed | stopped.
        numbers: metric → value, of `METRICS` and `verifiable_*`; what is not known is not there. A name of
            `evaluate.summarise` is that of the held-out triplets at the last evaluation,
            `<name>_before` before training.
        train: (step, loss) of each optimizer step.
        evaluations: held-out metrics of each evaluation, with "step", the oldest first.
        reason: why it did not finish, or what of it could not be read.
    """

    index: int
    name: str
    overrides: dict[str, str]
    status: str
    numbers: dict[str, float]
    train: list[tuple[int, float]]
    evaluations: list[dict[str, float]]
    reason: str | None


@dataclass(frozen=True)
class SweepResult:
    """A sweep as its folder tells it.

    Attributes:
        swept: key → values as text, in the order given.
        metric, direction: what its jobs are ranked by unless one asks for another; the loss where sweep.json has none.
    """

    folder: Path
    name: str
    command: list[str]
    swept: dict[str, list[str]]
    jobs: list[JobResult]
    metric: str
    direction: Direction


def read_sweep(folder: Path) -> SweepResult:
    """The sweep in `folder`, whatever of it there is by now.

    Raises:
        SweepError: there is no sweep.json. A job whose records are damaged does not raise; its `reason` says so.
    """
    path = folder / SWEEP_FILE
    if not path.is_file():
        raise SweepError(f"{folder} has no {SWEEP_FILE}: give the folder of a sweep, sweeps/<name>")
    sweep = json.loads(path.read_bytes())
    jobs = [read_result(folder / job["name"], job) for job in sorted(sweep["jobs"], key=lambda job: job["index"])]
    ranked_by = sweep.get("metric", "loss"), sweep.get("direction", "min")
    return SweepResult(folder, sweep["name"], list(sweep["command"]), sweep["swept"], jobs, *ranked_by)


def ranks(sweep: SweepResult, metric: str, direction: Direction) -> dict[int, int]:
    """Job index → rank from 1, the best first; equal values share a rank and the next one is left out.

    Only finished jobs in which `metric` is a finite number take part, so there may be none.

    Raises:
        SweepError: no job of a sweep could have such a metric.
    """
    if not is_metric(metric) or direction not in ("min", "max"):
        measured = sorted({name for job in sweep.jobs for name in job.numbers if name.startswith(VERIFIABLE)})
        raise SweepError(
            f"a sweep is not ranked by {metric!r} ({direction}): choose one of {', '.join([*METRICS, *measured])}; "
            "min or max"
        )
    sign = 1 if direction == "min" else -1
    values = {
        job.index: sign * job.numbers[metric]
        for job in sweep.jobs
        if job.status == "finished" and math.isfinite(job.numbers.get(metric, math.nan))
    }
    ordered = sorted(values.values())
    placed = {index: ordered.index(value) + 1 for index, value in values.items()}
    return dict(sorted(placed.items(), key=lambda item: (item[1], item[0])))


def write_csv(sweep: SweepResult, placed: dict[int, int]) -> Path:
    """Write `<sweep>/results.csv`, a row for each job in their order (RFC 4180), and return its path.

    Text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    measured = sorted({name for job in sweep.jobs for name in job.numbers if name not in METRICS})
    numbers = [*METRICS, *measured]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(map(_safe, ["index", "name", "status", "rank", *sweep.swept, *numbers, "reason"]))
    for job in sweep.jobs:
        settings = [_safe(job.overrides.get(key, "")) for key in sweep.swept]
        values = [job.numbers.get(name, "") for name in numbers]
        head = [job.index, _safe(job.name), _safe(job.status), placed.get(job.index, "")]
        writer.writerow([*head, *settings, *values, _safe(job.reason or "")])
    path = sweep.folder / RESULTS_FILE
    durable.replace_file(path, out.getvalue().encode())
    return path


def _safe(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
    return text


def read_result(folder: Path, described: dict[str, Any]) -> JobResult:
    """A job's result, as its folder tells it by now.

    Args:
        described: its index, name and overrides, as in sweep.json.
    """
    problems: list[str] = []

    def read(name: str, reader: Any, default: Any) -> Any:
        path = folder / name
        if not path.exists():
            return default
        try:
            return reader(path)
        except (OSError, ValueError, MetricsError) as error:
            problems.append(f"{name} can't be read: {error}")
            return default

    state = read(JOB_FILE, _read_object, {"status": "waiting"})
    rows = read("metrics.jsonl", read_metrics, [])
    evaluation = read(EVALUATION_FILE, _read_object, {})
    train = [row for row in rows if row.get("kind") == "train"]
    evaluations = [_heldout(row) for row in rows if row.get("kind") == "eval"]
    numbers = {**_numbers(train, evaluations), **_measured(evaluation)}
    if isinstance(state.get("seconds"), (int, float)):
        numbers["seconds"] = float(state["seconds"])
    reasons = [text for text in (state.get("reason"), *problems) if text]
    return JobResult(
        index=described["index"],
        name=described["name"],
        overrides=described["overrides"],
        status=str(state.get("status", "waiting")),
        numbers=numbers,
        train=[(row["step"], row["loss"]) for row in train if "loss" in row],
        evaluations=evaluations,
        reason="; ".join(reasons) or None,
    )


def _read_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def _heldout(row: dict[str, Any]) -> dict[str, float]:
    found = {key.removeprefix("heldout/"): value for key, value in row.items() if key.startswith("heldout/")}
    return {"step": row["step"], **found}


def _numbers(train: list[dict[str, Any]], evaluations: list[dict[str, float]]) -> dict[str, float]:
    before = next((row for row in evaluations if row["step"] == 0), {})
    after = evaluations[-1] if evaluations and evaluations[-1]["step"] > 0 else {}
    numbers = {name: after[name] for name in ROWS if name in after}
    numbers |= {f"{name}_before": before[name] for name in ROWS if name in before}
    if train:
        numbers |= {"train_loss": train[-1]["loss"], "steps": train[-1]["step"]}
        seconds = math.fsum(row.get("seconds", 0) for row in train)
        if seconds > 0:
            numbers["tokens_per_s"] = math.fsum(row.get("tokens", 0) for row in train) / seconds
    return numbers


def _measured(evaluation: dict[str, Any]) -> dict[str, float]:
    found = evaluation.get("verifiable")
    items = found.items() if isinstance(found, dict) else ()
    return {f"{VERIFIABLE}{name}": float(value) for name, value in items if isinstance(value, (int, float))}
