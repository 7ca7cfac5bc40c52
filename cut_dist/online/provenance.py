"""What a file of the rounds was made of, back to the instructions, as the manifests beside the files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cut_dist.manifest import file_sha256
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
        source = _find(path, Path(entry["file"]), entry["sha256"])
        made_by = provenance(source) if source else None
        inputs[name] = {"file": Path(entry["file"]).name, "sha256": entry["sha256"], "made_by": made_by}
    return {**{key: manifest[key] for key in _TOLD}, "sha256": manifest["output"]["sha256"], "inputs": inputs}


def _find(path: Path, recorded: Path, sha256: str) -> Path | None:
    """An input of `path` as it was read: in a folder that was moved as a whole, or where it lay; None if it is gone.

    The name alone does not tell: a round's triplets are made of an earlier round's, which have the same name.
    """
    near = (path.with_name(recorded.name), path.parent.parent / recorded.parent.name / recorded.name, recorded)
    others = (each for each in near if each.is_file() and each.resolve() != path.resolve())
    return next((each for each in others if file_sha256(each) == sha256), None)
