"""How a run's folder stands: its starts, last steps, checkpoints, and its ranks' last signs of life."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cut_dist.checkpoint import step_of
from cut_dist.heartbeat import read_beats
from cut_dist.lineage import read_lineage
from cut_dist.metrics import read_metrics
from cut_dist.run_folder import STOP_FILE, holder_of, read_finished
from cut_dist.run_start import CHECKPOINTS, METRICS

_LAST = 3  # steps and starts that are shown


def run_facts(folder: Path) -> dict[str, Any]:
    """What `python launch/env.py runs/x/y` says of a run; reads only.

    Raises:
        FileNotFoundError: `folder` is no run's folder.
    """
    lineage = read_lineage(folder)
    if lineage is None:
        raise FileNotFoundError(f"{folder} is no run's folder: it has no lineage.json")
    finished = read_finished(folder)
    facts: dict[str, Any] = {
        "folder": str(folder.resolve()),
        "finished": finished["finished"] if finished else "no",
        "held by": holder_of(folder) or "nobody",
        "STOP": "asked for" if (folder / STOP_FILE).exists() else "not asked for",
        "model": lineage["model"]["name"],
        "data": lineage["data"]["path"],
    }
    starts = lineage["starts"]
    for number, start in list(enumerate(starts, 1))[-_LAST:]:
        facts[f"start {number} of {len(starts)}"] = _described(start)
    return facts | _step_facts(folder) | _rank_facts(folder)


def _described(start: dict[str, Any]) -> str:
    code, packages = start["code"], start["packages"]
    versions = ", ".join(f"{name} {packages.get(name)}" for name in ("torch", "deepspeed", "transformers"))
    return (
        f"{start['started']} on {start['host']}, {start['world_size']} ranks; "
        f"from {start['resumed_from'] or 'nothing'}; "
        f"end {start['finished'] or 'never noted'}; "
        f"cut_dist {code['version']} {code['git_commit'] or ''}; {versions}"
    )


def _step_facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    path = folder / METRICS
    rows = [row for row in read_metrics(path) if row["kind"] == "train"] if path.exists() else []
    for row in rows[-_LAST:]:
        skipped = ", not taken: not finite" if row["skipped"] else ""
        facts[f"step {row['step']}"] = f"loss {row['loss']:.4f}, {row['seconds']:.2f} s{skipped}"
    if rows:
        facts["steps not taken"] = sum(row["skipped"] for row in rows)
    tags = sorted(path.name for path in (folder / CHECKPOINTS).glob("step_*") if step_of(path.name) is not None)
    return facts | {"checkpoints": ", ".join(tags) or "none"}


def _rank_facts(folder: Path) -> dict[str, Any]:
    """The longest silent first."""
    beats = sorted(read_beats(folder), key=lambda beat: beat.time)
    facts = {}
    for beat in beats:
        ended = f"; ended with {beat.ended}" if beat.ended else ""
        facts[str(beat)] = f"{time.time() - beat.time:.0f} s ago at step {beat.step}, {beat.at}{ended}"
    return facts
