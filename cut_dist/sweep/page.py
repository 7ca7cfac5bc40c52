"""A sweep's report.html: what was run, the ranking, heat maps, parallel coordinates and curves, in one file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from cut_dist import charts
from cut_dist.figure import describe
from cut_dist.lineage import redact
from cut_dist.sweep import page_charts
from cut_dist.sweep.ranking import duration, key_labels, number, ordered, settings, short_label, shown_metrics
from cut_dist.sweep.results import Direction, JobResult, SweepResult
from cut_dist.web_page import REPORT_STYLE, document, escape, table
from cut_dist.wording import counted

_PACKAGES = ("torch", "deepspeed", "transformers")


def render(sweep: SweepResult, placed: dict[int, int], metric: str, direction: Direction) -> str:
    """The whole page as text; without matplotlib its tables, and a word on how to get the charts.

    Args:
        placed: job index → rank, as `results.ranks` returns it.
    """
    done = sum(job.status == "finished" for job in sweep.jobs)
    jobs = ordered(sweep, placed)
    summary = f"{done} of {counted(len(sweep.jobs), 'job')} finished. {_best(sweep, jobs, placed, metric)}"
    sections = {
        "What was run": _what_was_run(sweep),
        "Ranking": _ranking(sweep, jobs, placed, metric, direction),
        **_charts(sweep, jobs, metric, direction),
        "Failed, or not read": _reasons(sweep),
    }
    shown = "".join(f"<section><h2>{escape(t)}</h2>{part}</section>\n" for t, part in sections.items() if part)
    body = f'<h1>Sweep {escape(sweep.name)}</h1><p class="dim">{escape(summary)}</p>\n{shown}'
    return document(f"Sweep {sweep.name}", REPORT_STYLE, body)


def _charts(sweep: SweepResult, jobs: list[JobResult], metric: str, direction: Direction) -> dict[str, str]:
    if charts.available():
        return page_charts.sections(sweep, jobs, metric, direction)
    remedy = f"They need matplotlib: {charts.REMEDY}, then python launch/sweep_report.py {sweep.folder}"
    return {"Charts": f'<p class="note">{escape(remedy)}</p>'}


def _best(sweep: SweepResult, jobs: list[JobResult], placed: dict[int, int], metric: str) -> str:
    if not placed:
        return f"None of them has a rank yet: that takes a finished job with a finite {metric}."
    first = jobs[0]
    ties = sum(rank == 1 for rank in placed.values()) - 1
    also = f"; {counted(ties, 'other job')} the same" if ties else ""
    return f"Best: {settings(first, list(sweep.swept))} ({short_label(metric)} {number(first.numbers[metric])}{also})."


def _what_was_run(sweep: SweepResult) -> str:
    values = "; ".join(f"{key} = {', '.join(options)}" for key, options in sweep.swept.items())
    facts = {"command": f"<code>{escape(shlex.join(redact(sweep.command)))}</code>", "swept": escape(values)}
    described = [run for job in sweep.jobs if (run := _described(sweep.folder / job.name))]
    if described:
        facts |= {name: escape(text) for name, text in _facts(described).items()}
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{text}</dd>' for name, text in facts.items())}</dl>"


def _described(folder: Path) -> dict[str, Any] | None:
    """What a job ran on; None where it has not begun, or its records are damaged."""
    try:
        return describe(folder)
    except (OSError, ValueError, KeyError):
        return None


def _facts(described: list[dict[str, Any]]) -> dict[str, str]:
    """Model, data, code and machine; where jobs differ in one, all that there were."""

    def each(tell: Any) -> str:
        return "; ".join(dict.fromkeys(tell(run) for run in described))

    def model(run: dict[str, Any]) -> str:
        named = run["config"].get("model", {}).get("name_or_path")
        return "/".join(Path(named).parts[-3:]) if named else "random weights"

    def data(run: dict[str, Any]) -> str:
        path, counts = run["config"].get("data", {}).get("path", ""), run["data"]["counts"]
        sizes = f"{counted(counts.get('train', 0), 'triplet')} to train on, {counts.get('heldout', 0)} held out"
        return f"{Path(path).name}: {sizes} (content {run['data']['content_hash'][:12]})"

    def code(run: dict[str, Any]) -> str:
        commit, version = run["code"]["git_commit"], f"cut_dist {run['code']['version']}"
        changed = ", with changes that are not committed" if run["code"]["git_dirty"] else ""
        return f"{version}, commit {commit[:12]}{changed}" if commit else version

    machine = described[0]["machine"]
    return {
        "model": each(model),
        "data": each(data),
        "code": each(code),
        "packages": each(lambda run: ", ".join(f"{n} {v}" for n, v in run["packages"].items() if n in _PACKAGES)),
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['system']} (where this page was made); "
        f"ranks of a job: {each(lambda run: str(run['world_size']))}",
    }


def _ranking(
    sweep: SweepResult, jobs: list[JobResult], placed: dict[int, int], metric: str, direction: Direction
) -> str:
    labels, names = key_labels(list(sweep.swept)), shown_metrics(sweep, metric)
    head = ["rank", *labels.values(), *map(short_label, names), "tok/s", "time", "status"]
    rows = [
        [
            str(placed.get(job.index, "")),
            *(job.overrides.get(key, "") for key in sweep.swept),
            *(number(job.numbers.get(name)) for name in names),
            *(number(job.numbers.get("tokens_per_s")), duration(job.numbers.get("seconds")), job.status),
        ]
        for job in jobs
    ]
    first = "lowest" if direction == "min" else "highest"
    notes = [
        f"The {first} {short_label(metric)} comes first. All numbers are of the held-out triplets after training, "
        "train loss that of the last batch; results.csv has them all, and those before training.",
    ]
    if any(key.startswith("objective") for key in sweep.swept):
        notes.append(
            "Loss is each job's own objective: λ, α and γ change what it counts, so between jobs that differ in them "
            "it says less than −log p, p of the tokens, or a measured accuracy."
        )
    if "objective.lam" in sweep.swept:
        notes.append("λ decides which tokens are inappropriate: jobs that differ in it measure p of different ones.")
    said = "".join(f'<p class="dim">{escape(note)}</p>' for note in notes)
    return f'<div class="ranking{" best" * bool(placed)}">{table(head, rows)}</div>{said}'


def _reasons(sweep: SweepResult) -> str:
    rows = [(job.name, job.status, job.reason) for job in sweep.jobs if job.reason]
    return f'<div class="reasons">{table(["job", "status", "reason"], rows)}</div>' if rows else ""
