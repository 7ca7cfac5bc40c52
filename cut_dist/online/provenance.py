"""What a file of the rounds was made of, back to the instructions, as the manifests beside the files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cut_dist.online.stage import read_manifest

_TOLD = ("stage", "settings", "counts", "cost", "finished", "code")


def provenance(path: Path) -> dict[str, Any] | None:
    """How `path` was made, or None where no manifest lies beside it.

    Returns:
        The manifest's stage, settings, counts, cost, time and code, and under "inputs" each input's file and sha256
        with, under "made_by", the same of it.
    """
    manifest = read_manifest(path)
    if manifest is None:
        return None
    inputs = {}
    for name, entry in manifest["inputs"].items():
        beside = path.with_name(Path(entry["file"]).name)  # so that the folder can be moved
        source = beside if beside.exists() else Path(entry["file"])
        inputs[name] = {"file": source.name, "sha256": entry["sha256"], "made_by": provenance(source)}
    return {**{key: manifest[key] for key in _TOLD}, "sha256": manifest["output"]["sha256"], "inputs": inputs}
