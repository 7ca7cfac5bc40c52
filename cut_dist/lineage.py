"""lineage.json: which model, data, code and packages made a run, with an entry for every start of it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from cut_dist import __version__, durable
from cut_dist.manifest import file_sha256
from cut_dist.run_folder import now

LINEAGE_FILE = "lineage.json"
INDEX_FILE = "model.safetensors.index.json"

PACKAGES = (
    "torch",
    "deepspeed",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "numpy",
    "triton",
    "flash-attn",
    "hydra-core",
    "omegaconf",
    "wandb",
)

# Beyond this the weights are told by their headers (names, shapes, offsets): reading 26 GB at every start is slow.
HASH_LIMIT_BYTES = 4 * 2**30

_SECRET_KEY = re.compile(
    r"(api_?key|access_?key|secret|passw|credential|(access|auth|hf|api|bearer)_?token)", re.IGNORECASE
)
_SECRET_VARIABLE = re.compile(r"(_KEY|_TOKEN|_SECRET|PASSWORD|_CREDENTIALS?)$")
_REDACTED = "***"


def write_lineage(
    folder: Path,
    *,
    model: dict[str, Any],
    data: dict[str, Any],
    world_size: int,
    argv: Sequence[str],
    resumed_from: str | None = None,
    parent: dict[str, Any] | None = None,
) -> None:
    """Records a start of the run in `folder` (rank 0 only); earlier starts stay recorded.

    Args:
        folder: the run's folder.
        model: `model_record(…)` of what training begins with.
        data: path, content hash and counts of the prepared data.
        world_size: number of ranks.
        argv: the command line; secrets in it are blotted out.
        resumed_from: the checkpoint that this start continues, as its tag or as its folder; the tag is kept, so that
            a run's folder can be moved.
        parent: `parent_run(…)` of the model, when a run of this project made it.
    """
    start = {
        "started": now(),
        "finished": None,
        "resumed_from": None if resumed_from is None else Path(resumed_from).name,
        "argv": list(argv),
        "world_size": world_size,
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "code": code_record(),
        "packages": package_versions(),
    }
    starts = [*(read_lineage(folder) or {}).get("starts", []), start]
    _write(folder, {"model": model, "data": data, "parent": parent, "starts": starts})


def finish_lineage(folder: Path) -> None:
    """Notes when the latest start came to its end."""
    lineage = read_lineage(folder)
    if lineage is None:
        raise FileNotFoundError(f"{folder / LINEAGE_FILE} is missing: write_lineage comes first")
    lineage["starts"][-1]["finished"] = now()
    _write(folder, lineage)


def read_lineage(folder: Path) -> dict[str, Any] | None:
    """The lineage of the run in `folder`, or None where there is none."""
    path = folder / LINEAGE_FILE
    return json.loads(path.read_bytes()) if path.exists() else None


def model_record(name_or_path: str, revision: str | None = None) -> dict[str, Any]:
    """Names a model; a local folder also by the hashes of its config, its weights' index and its weights.

    Weights of more than HASH_LIMIT_BYTES in all are told by sizes and the hashes of their safetensors
    headers.
    """
    folder = Path(name_or_path)
    record: dict[str, Any] = {"name": name_or_path, "revision": revision, "local": folder.is_dir()}
    if not folder.is_dir():
        return record
    weights = sorted(folder.glob("*.safetensors"))
    whole = sum(path.stat().st_size for path in weights) <= HASH_LIMIT_BYTES
    described = [path for path in (folder / "config.json", folder / INDEX_FILE) if path.is_file()]
    files = record["files"] = {}
    for path in [*described, *weights]:
        read_whole = whole or path in described
        hashed = {"sha256": file_sha256(path)} if read_whole else {"header_sha256": _header_sha256(path)}
        files[path.name] = {"bytes": path.stat().st_size} | hashed
    return record


def parent_run(model_path: str) -> dict[str, Any] | None:
    """The run that made a local model (its `runs/<experiment>/<name>/model`), or None."""
    folder = Path(model_path).resolve().parent
    try:
        lineage = read_lineage(folder)
    except ValueError:
        lineage = None
    if lineage is None or not Path(model_path).is_dir():
        return None
    return {
        "run": f"{folder.parent.name}/{folder.name}",
        "path": str(folder),
        "model": lineage["model"]["name"],
        "lineage_sha256": file_sha256(folder / LINEAGE_FILE),
    }


def code_record() -> dict[str, Any]:
    """This package's version and, in a git checkout of it, the commit and whether files differ from it."""
    root = Path(__file__).resolve().parent.parent
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD") if top and Path(top).resolve() == root else None
    # An installed copy may lie inside some other project's repository; that commit would say nothing.
    dirty = bool(_git(root, "status", "--porcelain")) if commit else None
    return {"version": __version__, "git_commit": commit, "git_dirty": dirty}


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def is_secret(name: str) -> bool:
    """Whether a key or variable of this name holds a secret, as far as its name tells."""
    return bool(_SECRET_KEY.search(name) or _SECRET_VARIABLE.search(name))


def redact(value: Any) -> Any:
    """A copy with secrets blotted out.

    These are: values under secret-looking keys, `key=value` strings with such a key, and, wherever they
    occur, the values of this process's `*_KEY`, `*_TOKEN`, `*_SECRET` and `*PASSWORD` variables.
    """
    secrets = {text for name, text in os.environ.items() if _SECRET_VARIABLE.search(name) and len(text) >= 8}
    return _redact(value, secrets)


def _redact(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _REDACTED if item and _SECRET_KEY.search(str(key)) else _redact(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redact(item, secrets) for item in value]
    if not isinstance(value, str):
        return value
    key, equals, text = value.partition("=")
    if equals and text and _SECRET_KEY.search(key):
        return f"{key}={_REDACTED}"
    for secret in secrets:
        value = value.replace(secret, _REDACTED)
    return value


def _write(folder: Path, lineage: dict[str, Any]) -> None:
    durable.replace_file(folder / LINEAGE_FILE, (json.dumps(redact(lineage), indent=1) + "\n").encode())


def _header_sha256(path: Path) -> str:
    """Hash of a safetensors file's header: 8 bytes of little-endian length, then that much JSON."""
    with path.open("rb") as file:
        length = file.read(8)
        return hashlib.sha256(
            length + file.read(min(int.from_bytes(length, "little"), 100 * 2**20))
        ).hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
