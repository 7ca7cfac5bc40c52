"""W&B artifacts that tell where a run comes from and what it made: data and model in, model out.

Each holds a small JSON of facts (hashes, counts, sizes; no path, no host, no row). Equal facts are one version to W&B,
so the runs of a sweep share their data, and a later round's input is the earlier round's output.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cut_dist.lineage import model_record, read_lineage
from cut_dist.tracker import TrackedRun

if TYPE_CHECKING:
    import wandb

RUN_ID_FILE = "wandb_id.txt"


def data_artifact(run: TrackedRun, with_files: bool) -> wandb.Artifact:
    """`data-<hash>`: content hash and counts of the prepared triplets; with their files, if asked for."""
    data = run.lineage["data"]
    facts = {"content_hash": data["content_hash"], "counts": data["counts"]}
    artifact = _artifact(f"data-{data['content_hash'][:12]}", "dataset", "data.json", facts)
    if with_files:
        paths = {key: run.config["data"][key] for key in ("path", "heldout_path")}
        for key, path in paths.items():
            if path and Path(path).is_file():  # data on the Hub stays there
                artifact.add_file(path, name=f"{key}/{Path(path).name}", policy="immutable")
    return artifact


def input_model(run: TrackedRun) -> wandb.Artifact:
    """The model that training starts from: `output_model` of the run that made it, or the facts known of it."""
    parent, model = run.lineage["parent"], run.lineage["model"]
    if parent and (Path(parent["path"]) / RUN_ID_FILE).exists():
        return _model_of(Path(parent["path"]), model["files"])
    name = parent["run"] if parent else Path(model["name"]).name
    facts = {"name": name, **{key: model[key] for key in ("revision", "files", "sizes", "seed") if key in model}}
    return _artifact(f"model-{re.sub(r'[^A-Za-z0-9._-]', '-', name)}"[:128], "model", "model.json", facts)


def output_model(run: TrackedRun, model: Path) -> wandb.Artifact:
    """`model-<W&B id>`: which files training wrote, by size and hash, from what, and by which code."""
    return _model_of(run.folder, model_record(str(model))["files"])


def weights_artifact(run: TrackedRun, model: Path) -> wandb.Artifact:
    """`weights-<W&B id>`: the exported folder itself. Apart from `output_model`, whose version it must not change."""
    facts = _model_facts(run.folder, model_record(str(model))["files"])
    artifact = _artifact(f"weights-{_run_id(run.folder)}", "model", "lineage.json", facts)
    artifact.add_dir(str(model), policy="immutable")  # else W&B copies the weights before it sends them
    return artifact


def _model_of(folder: Path, files: dict[str, Any]) -> wandb.Artifact:
    return _artifact(f"model-{_run_id(folder)}", "model", "model.json", _model_facts(folder, files))


def _model_facts(folder: Path, files: dict[str, Any]) -> dict[str, Any]:
    """Of the model that the run in `folder` made: the same at that run's end and at a later round's start."""
    lineage = read_lineage(folder) or {}
    parent = lineage["parent"]
    return {
        "run": f"{folder.parent.name}/{folder.name}",
        "trained_from": parent["run"] if parent else Path(lineage["model"]["name"]).name,
        "data": lineage["data"]["content_hash"],
        "code": lineage["starts"][-1]["code"],
        "files": files,
    }


def _artifact(name: str, type: str, file: str, facts: dict[str, Any]) -> wandb.Artifact:
    import wandb

    artifact = wandb.Artifact(name, type=type, metadata=facts)
    with artifact.new_file(file) as out:
        json.dump(facts, out, indent=1, sort_keys=True)
    return artifact


def _run_id(folder: Path) -> str:
    return (folder / RUN_ID_FILE).read_text().strip()
