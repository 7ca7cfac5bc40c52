"""A checkpoint's MANIFEST.json: size and sha256 of every file, so that what is loaded is what was written.

The manifest guards itself as well: it carries a checksum of the rest of it, and counts only byte for byte.
It tells accidents, not attacks: who can write the folder can write a manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cut_dist import durable
from cut_dist.wording import UserError

FORMAT = 1
MANIFEST = "MANIFEST.json"

_HASH_BUFFER = 16 * 2**20
_HASH_THREADS = 8  # sha256 runs without the interpreter's lock


class CheckpointError(UserError, RuntimeError):
    """A checkpoint can't be written, read or trusted; the message names it and the way out."""


# What tells, without reading them, that a checkpoint's files are still the ones that were hashed: the checksum
# that its manifest carries of itself, and the size in bytes and modification time in ns of every other file.
Fingerprint = tuple[str, dict[str, tuple[int, int]]]


# What the manifest says of a file: {"bytes": its size, "sha256": in hexadecimal}.
Entry = dict[str, Any]


def file_names(folder: Path) -> list[str]:
    """Relative POSIX names of all files below `folder`, sorted.

    Raises:
        CheckpointError: it holds something that is neither file nor folder.
        OSError: it can't be read.
    """
    return sorted(_stamps(folder))


def seal_files(folder: Path, names: Iterable[str]) -> dict[str, Entry]:
    """Hashes and fsyncs files of `folder`, which nobody writes any more.

    Returns:
        Name → its entry in the manifest.

    Raises:
        OSError: the disk fails.
    """

    def seal(name: str) -> Entry:
        entry = {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        durable.sync_file(folder / name)
        return entry

    names = list(names)
    return dict(zip(names, _in_threads(seal, names), strict=True))


def seal_folder(folder: Path, files: dict[str, Entry], facts: dict[str, Any]) -> Fingerprint:
    """Writes the manifest of sealed files and fsyncs it and the folders.

    Args:
        folder: what all ranks have written; nobody writes there any more.
        files: `seal_files` of every file below it, by whichever ranks.
        facts: what else the manifest says (JSON: finite numbers, strings, lists, string keys).

    Returns:
        The fingerprint of what was hashed.

    Raises:
        CheckpointError: the folder is empty, has a manifest already, holds links or other files than were hashed, or
            `facts` are not JSON.
        OSError: the disk fails.
    """
    stamps = _stamps(folder)
    if not stamps:
        raise CheckpointError(f"{folder} is empty: nothing was saved into it")
    if MANIFEST in stamps:
        raise CheckpointError(f"{folder / MANIFEST} exists already: begin_stage must come before every save")
    sizes, hashed = {name: size for name, (size, _) in stamps.items()}, {n: e["bytes"] for n, e in files.items()}
    if sizes != hashed:
        differing = ", ".join(sorted(name for name, _ in sizes.items() ^ hashed.items()))
        raise CheckpointError(
            f"rank 0 does not see in {folder} what the ranks have hashed: {differing}. All ranks need the same run.root"
        )
    durable.write_file(folder / MANIFEST, _render({"format": FORMAT, **facts, "files": files}))
    for where, _, _ in os.walk(folder, topdown=False):
        durable.sync_folder(Path(where))
    return read_manifest(folder)["sha256"], stamps


def fingerprint(folder: Path) -> Fingerprint | None:
    """The fingerprint of the checkpoint in `folder` as it is now; None if its manifest or a file can't be trusted.

    It costs a look at each file's size and time, and reads nothing but the manifest.
    """
    try:
        checksum, stamps = read_manifest(folder)["sha256"], _stamps(folder)
    except (CheckpointError, OSError):
        return None
    del stamps[MANIFEST]
    return checksum, stamps


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in `folder`: tag, step, world_size, versions, files.

    Raises:
        CheckpointError: it is missing, or not byte for byte what was committed. The other files are not
            looked at.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}") from error
    try:
        manifest = json.loads(data)
        # Rendering again covers also what parsing forgets: spaces, the spelling of numbers, repeated keys.
        intact = _render({key: manifest[key] for key in manifest if key != "sha256"}) == data
    except (ValueError, TypeError, RecursionError, CheckpointError):
        intact = False
    if not intact:
        raise CheckpointError(f"{path} is damaged: it does not match its own checksum")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {manifest['format']}, and this version reads {FORMAT}")
    return manifest


def verify(folder: Path) -> list[str]:
    """What is wrong with the checkpoint in `folder`, as sentences; empty if it can be trusted.

    Names and sizes are compared first, and the contents are hashed only if those agree.
    """
    try:
        manifest = read_manifest(folder)
        found = {name: size for name, (size, _) in _stamps(folder).items()}
    except (CheckpointError, OSError) as error:
        return [str(error)]
    listed = manifest["files"]
    del found[MANIFEST]
    problems = [f"{name} is missing" for name in sorted(listed.keys() - found.keys())]
    problems += [f"{name} is not in the manifest (move it out)" for name in sorted(found.keys() - listed.keys())]
    for name in sorted(listed.keys() & found.keys()):
        if found[name] != listed[name]["bytes"]:
            problems.append(f"{name} has {found[name]} bytes instead of {listed[name]['bytes']}")
    if manifest["tag"] != folder.name:
        problems.append(f"the manifest is that of {manifest['tag']}")
    if problems:
        return problems

    def compare(name: str) -> str | None:
        try:
            same = file_sha256(folder / name) == listed[name]["sha256"]
        except OSError as error:
            return f"{name} can't be read: {error.strerror}"
        return None if same else f"{name} has changed since its commit"

    return [problem for problem in _in_threads(compare, sorted(listed)) if problem]


def file_sha256(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    buffer = bytearray(min(_HASH_BUFFER, max(1, path.stat().st_size)))
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def _render(manifest: dict[str, Any]) -> bytes:
    """The manifest's bytes, with a checksum of all the rest of it."""
    try:
        # Through JSON once, so that what is sorted and hashed is what a reader will parse (int keys, tuples).
        body = json.loads(json.dumps(manifest, allow_nan=False))
        checksum = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return (json.dumps(body | {"sha256": checksum}, indent=1, sort_keys=True) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's state can't be kept as JSON: {error}") from error


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Relative POSIX name → (bytes, ns of the last change) of every file below. Links and the like are refused."""

    def fail(error: OSError) -> None:
        raise error

    stamps = {}
    for where, subfolders, names in os.walk(folder, onerror=fail):
        for name in [*names, *subfolders]:
            path = Path(where, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                stamps[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
            elif not stat.S_ISDIR(status.st_mode):
                raise CheckpointError(f"{path} is not a plain file; a checkpoint holds no links or devices")
    return stamps


def _in_threads(work: Callable[[str], Any], names: list[str]) -> list[Any]:
    with ThreadPoolExecutor(min(_HASH_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, names))
