"""A run as a figure and a JSON that can be committed: what was run, on what, and its numbers."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from cut_dist.lineage import read_lineage
from cut_dist.metrics import read_metrics
from cut_dist.run_folder import IDENTITY_FILE


def save_figure(folder: Path, target: Path) -> None:
    """Write `<target>.png` and `<target>.json` for the run in `folder`.

    Args:
        folder: a run's folder with metrics.jsonl, identity.json and lineage.json.
        target: path without suffix.

    Raises:
        FileNotFoundError: if `folder` is no run's folder.
    """
    rows = read_metrics(folder / "metrics.jsonl")
    train = [row for row in rows if row["kind"] == "train"]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    target.parent.mkdir(parents=True, exist_ok=True)
    described = describe(folder) | {"train": train, "evaluations": evaluations}
    target.with_suffix(".json").write_text(json.dumps(described, indent=1) + "\n")
    _draw(train, evaluations, target.with_suffix(".png"))


def describe(folder: Path) -> dict[str, Any]:
    """What was run and on what: configuration, data, code and packages of the run, and this machine."""
    lineage = read_lineage(folder)
    if lineage is None:
        raise FileNotFoundError(f"{folder} has no lineage.json: give the folder of a run, runs/<experiment>/<name>")
    start = lineage["starts"][-1]
    return {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()},
        "world_size": start["world_size"],
        "code": start["code"],
        "packages": start["packages"],
        "data": {key: lineage["data"][key] for key in ("content_hash", "counts")},
        "config": json.loads((folder / IDENTITY_FILE).read_text()),
    }


def processor() -> str:
    """The name that this machine's processor gives itself."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _draw(train: list[dict], evaluations: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    steps = [row["step"] for row in train]
    for key, label in (("loss", "loss"), ("loss/instruction", "L1, Align-N"), ("loss/authentic", "L2, Align-N"),
                       ("loss/align_p", "L2, Align-P")):  # fmt: skip
        left.plot(steps, [row[key] for row in train], label=label, linewidth=2 if key == "loss" else 1)
    left.set(title="Training batches, before each update", xlabel="step", ylabel="share of the loss")
    at = [row["step"] for row in evaluations]
    panels = ((middle, "train", "Sample of training triplets"), (right, "heldout", "Held-out triplets"))
    for axis, split, title in panels:
        for key, label, style in (
            ("p_inappropriate", "p, the tokens detected at the first evaluation", "o-C3"),
            ("p_inappropriate_now", "p, inappropriate tokens, as detected at that step", "o:C1"),
            ("p_others", "p, other tokens of Align-N", "o-C0"),
            ("p_align_p", "p, tokens of Align-P", "o-C2"),
        ):
            values = [row.get(f"{split}/{key}") for row in evaluations]
            if None not in values:
                axis.plot(at, values, style, label=label, markersize=3)
        axis.set(title=title, xlabel="step", ylabel="mean probability", ylim=(0, 1))
    for axis in (left, middle, right):
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)
