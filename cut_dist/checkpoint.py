"""Checkpoints that are either whole or not there: a staged commit around whatever an engine writes.

    rank 0     stage = begin_stage(root)                  an empty root/.stage; then a barrier
    all ranks  engine.save_checkpoint(stage, …)           shards land in the stage; then a barrier
    all ranks  seal_share(stage, rank, world_size)        each hashes and fsyncs its own; rank 0 gathers what they say
    rank 0     commit_stage(root, step, …)                fsync, MANIFEST.json, rename to root/<tag>
    rank 0     prune(root, keep_last)                     what newer, verified checkpoints make superfluous

On resume rank 0 asks `newest_valid(root)` and tells the others. A checkpoint counts only if every file has
the size and the sha256 that its manifest says; `latest` is a hint for people. `root` must lie on storage
that all ranks share. Nothing here knows the engine, and nothing here reads or writes a pickle.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from pathlib import Path

from cut_dist import durable
from cut_dist.manifest import (
    CheckpointError,
    Entry,
    Fingerprint,
    file_names,
    fingerprint,
    read_manifest,
    seal_files,
    seal_folder,
    verify,
)
from cut_dist.wording import counted

STAGE = ".stage"
LATEST = "latest"

_TRASH = ".trash_"
_REJECTED = "rejected_"
_TAG = re.compile(r"step_([0-9]{8})")
_WRITER = re.compile(r"rank_?([0-9]+)")  # the first such in zero_pp_rank_1_mp_rank_00_optim_states.pt, rng_rank00001.pt

# What this process has hashed, at a commit or reading it back: a checkpoint of 13B parameters is 180 GB, too much
# to be read again at every save.
_hashed: dict[Path, Fingerprint] = {}

log = logging.getLogger(__name__)


def tag_of(step: int) -> str:
    """The folder name of a step's checkpoint, e.g. `step_00000020`."""
    if not 0 <= step < 10**8:
        raise ValueError(f"a checkpoint's step must lie in 0..99999999, not {step}")
    return f"step_{step:08d}"


def step_of(tag: str) -> int | None:
    """The step that a tag names, or None if it is no tag of ours, to the letter."""
    match = _TAG.fullmatch(tag)
    return int(match.group(1)) if match else None


# ---- writing ---------------------------------------------------------------------------------------------


def begin_stage(root: Path) -> Path:
    """Makes an empty `root/.stage` (rank 0 only) and clears what a killed save or prune left behind.

    Returns:
        The folder that every rank writes its shards into, once the caller's barrier has passed.
    """
    root.mkdir(parents=True, exist_ok=True)
    abandon_stage(root)
    stage = root / STAGE
    stage.mkdir()
    return stage


def abandon_stage(root: Path) -> None:
    """Removes an unfinished stage (rank 0 only), e.g. to give its space back after a full disk."""
    _clear_trash(root)
    if os.path.lexists(root / STAGE):
        _delete(root / STAGE)


def seal_share(stage: Path, rank: int, world_size: int) -> dict[str, Entry]:
    """Hashes and fsyncs one rank's share of the filled stage (all ranks, after a barrier).

    A share is what the rank has written itself, by the rank in the files' names, and what bears no rank is rank 0's: a
    guess that only decides who reads what, as any name has exactly one reader.

    Returns:
        Name → entry in the manifest; the union of all ranks' is what `commit_stage` wants.

    Raises:
        CheckpointError: the stage holds links.
        OSError: the disk fails.
    """
    return seal_files(stage, [name for name in file_names(stage) if _writer(name, world_size) == rank])


def commit_stage(
    root: Path,
    step: int,
    *,
    files: dict[str, Entry],
    world_size: int,
    versions: dict[str, str] | None = None,
) -> Path:
    """Turns the sealed stage into the checkpoint `root/<tag_of(step)>` (rank 0 only).

    Args:
        root: the folder of checkpoints.
        step: optimizer steps done.
        files: `seal_share` of every rank.
        world_size: number of ranks whose shards the stage holds.
        versions: package name → version, for the reader of the manifest.

    Returns:
        The committed folder.

    Raises:
        CheckpointError: a valid checkpoint of that step is there already, the stage is empty, holds links
            or other files than `files`, or the disk fails. Earlier checkpoints are untouched in every case.
    """
    tag = tag_of(step)
    stage, target = root / STAGE, root / tag
    broken = _verify(target) if os.path.lexists(target) else None
    if broken == []:
        raise CheckpointError(f"{target} is committed already, and what is committed is never overwritten")
    facts = {"tag": tag, "step": step, "world_size": world_size, "versions": versions or {}}
    try:
        sealed = seal_folder(stage, files, facts)
        if broken:
            _set_aside(target, broken)
        os.rename(stage, target)
        durable.sync_folder(root)
    except OSError as error:
        raise CheckpointError(_failed_commit(root, tag, error)) from error
    _hashed[target] = sealed
    try:
        durable.replace_file(root / LATEST, f"{tag}\n".encode())
    except OSError as error:
        log.warning("%s is committed, but the hint %s could not be written: %s", tag, root / LATEST, error)
    return target


def require_free_space(root: Path, needed_bytes: int) -> None:
    """Raises CheckpointError, naming needed and free space, if a checkpoint of that size does not fit now."""
    place = root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise CheckpointError(
            f"a checkpoint needs {_gib(needed_bytes)} but {root} has {_gib(free)} free. Free some, lower "
            "checkpoint.keep_last, or move run.root to a larger disk"
        )


def prune(root: Path, keep_last: int) -> list[str]:
    """Removes what the `keep_last` newest valid checkpoints make superfluous (rank 0 only).

    Those to be kept are verified first; broken ones don't count. What this process has hashed already, at its
    commit or reading it back, is hashed again only if its manifest, or a file's name, size or time, has changed.
    With fewer than `keep_last` valid ones nothing is removed. A removal starts with a rename, so no kill leaves
    half a checkpoint under its tag.

    Returns:
        The names removed, oldest first.
    """
    if keep_last < 2:
        raise ValueError(f"keep_last must be at least 2, not {keep_last}: the newest may be the broken one")
    _clear_trash(root)
    kept: list[int] = []
    for step, path in _tagged(root):
        if len(kept) < keep_last and not _verify_once(path):
            kept.append(step)
    if len(kept) < keep_last:
        return []
    removed = []
    for path in sorted(root.iterdir(), key=lambda path: path.name.removeprefix(_REJECTED)):
        step = step_of(path.name.removeprefix(_REJECTED))
        if step is None or step >= kept[-1]:
            continue
        try:
            _remove(path)
            removed.append(path.name)
        except OSError as error:
            log.warning("the old checkpoint %s could not be removed: %s", path, error)
    return removed


# ---- reading ---------------------------------------------------------------------------------------------


def newest_valid(root: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to resume from, and what was passed over on the way to it, as sentences to be shown.

    Decided by the folders and their manifests alone; `latest` is only compared. Rank 0 decides, the others
    obey.

    Returns:
        (None, []) where nothing has ever been saved.

    Raises:
        CheckpointError: checkpoints are, or were, there and none is valid. A run never starts over by itself.
    """
    reasons = []
    for _, path in _tagged(root):
        problems = _verify(path)
        if not problems:
            hint = _read_hint(root)
            if hint != path.name:
                reasons.append(f"{root / LATEST} says {hint!r}; the newest valid checkpoint is {path.name}")
            return path, reasons
        reasons.append(f"{path.name} was passed over: {_shorten(problems)}")
    traces = sorted(path.name for path in _entries(root) if _is_trace(path))
    if not traces:
        return None, []
    raise CheckpointError(
        f"{root} holds no valid checkpoint, though it is not empty ({', '.join(traces)}). "
        + "".join(f"{reason}. " for reason in reasons)
        + "Restore one from a copy, choose another run.name, or start anew with run.resume=never"
    )


def require_world_size(path: Path, world_size: int) -> None:
    """Raises CheckpointError if the checkpoint's shards were written by another number of ranks."""
    written_by = read_manifest(path)["world_size"]
    if written_by != world_size:
        raise CheckpointError(
            f"{path} was written by {counted(written_by, 'rank')} and this run has {world_size}: "
            f"start on {written_by}, or start anew with run.resume=never"
        )


# ---- the pieces ------------------------------------------------------------------------------------------


def _writer(name: str, world_size: int) -> int:
    found = _WRITER.search(name.rpartition("/")[2])
    return int(found[1]) % world_size if found else 0


def _verify(path: Path) -> list[str]:
    """`verify`, remembered if nothing is wrong."""
    _hashed.pop(path, None)
    before = fingerprint(path)
    problems = verify(path)
    if not problems and before is not None:
        _hashed[path] = before
    return problems


def _verify_once(path: Path) -> list[str]:
    """`verify`, without hashing where the files are, by their fingerprint, those that this process has hashed."""
    return [] if path in _hashed and _hashed[path] == fingerprint(path) else _verify(path)


def _entries(root: Path) -> list[Path]:
    return list(root.iterdir()) if root.is_dir() else []


def _tagged(root: Path) -> list[tuple[int, Path]]:
    """(step, path) of everything under a tag's name, newest first."""
    steps = ((step_of(path.name), path) for path in _entries(root))
    return sorted(((step, path) for step, path in steps if step is not None), reverse=True)


def _is_trace(path: Path) -> bool:
    """Whether an entry shows that something was saved here once (also by other hands: `global_step100/`)."""
    return path.name == LATEST or step_of(path.name) is not None or (path.is_dir() and path.name[0] != ".")


def _read_hint(root: Path) -> str | None:
    try:
        return (root / LATEST).read_bytes()[:80].decode("utf-8", "replace").strip()
    except OSError:
        return None


def _set_aside(target: Path, problems: list[str]) -> None:
    """Moves a broken checkpoint out of its successor's way; prune removes it when it is old."""
    rejected = target.with_name(_REJECTED + target.name)
    if os.path.lexists(rejected):
        _remove(rejected)
    os.rename(target, rejected)
    log.warning("%s was broken (%s); it is now %s", target, _shorten(problems), rejected.name)


def _remove(path: Path) -> None:
    _hashed.pop(path, None)
    trash = path.with_name(_TRASH + path.name)
    os.rename(path, trash)
    durable.sync_folder(path.parent)
    _delete(trash)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _clear_trash(root: Path) -> None:
    for path in _entries(root):
        if path.name.startswith(_TRASH):
            _delete(path)


def _failed_commit(root: Path, tag: str, error: OSError) -> str:
    message = f"{tag} could not be committed: {error}. Earlier checkpoints in {root} are untouched"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message += f"; {_gib(shutil.disk_usage(root).free)} are free there"
    return message


def _shorten(problems: list[str]) -> str:
    shown = "; ".join(problems[:3])
    return shown if len(problems) <= 3 else f"{shown}; and {len(problems) - 3} more"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
