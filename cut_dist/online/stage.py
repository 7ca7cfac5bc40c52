"""One stage of a round: what it reads and how it is set, rows written down as they come, and a manifest at the end.

<output>                  all rows, in the order of the input; there only when the stage is done
<output>.manifest.json    inputs and output by hash, settings, counts, cost: written last
<output>.begun.json       the same inputs and settings while the stage is going on
<output>.partial          rows that are there already; <output>.partial.<rank> of further ranks
.<output>.lock            held by the process that is at it
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cut_dist import durable
from cut_dist.lineage import code_record, redact
from cut_dist.manifest import file_sha256
from cut_dist.online.records import RecordLog, write_records
from cut_dist.run_folder import config_changes, now
from cut_dist.wording import UserError


class StageError(UserError, RuntimeError):
    """A stage can't go on as asked; the message says why and what to do."""


def manifest_path(output: Path) -> Path:
    """Where the manifest of a stage's output lies."""
    return output.with_name(f"{output.name}.manifest.json")


def read_manifest(output: Path) -> dict[str, Any] | None:
    """The manifest of a finished stage, or None."""
    path = manifest_path(output)
    return json.loads(path.read_bytes()) if path.exists() else None


def partial_path(output: Path, rank: int = 0) -> Path:
    """Where a rank of an unfinished stage writes its rows down."""
    return output.with_name(f"{output.name}.partial{f'.{rank}' if rank else ''}")


def partial_paths(output: Path) -> list[Path]:
    """All partial files of an unfinished stage, whatever number of ranks left them."""
    return sorted(output.parent.glob(f"{output.name}.partial*"))


@dataclass
class Stage:
    """A stage that is going on, or that was found done (`done`: its rows are in `output`, nothing is to do).

    Attributes:
        rows: what earlier starts wrote down, by id, of all ranks.
        log: this process's own log, closed with the stage; None where the stage is done.
    """

    output: Path
    done: bool
    log: RecordLog | None = None
    rows: dict[str, Any] = field(default_factory=dict)
    _identity: dict[str, Any] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def append(self, rows: Iterable[Any]) -> None:
        """Write rows down; after the return they survive a kill."""
        fresh = [row for row in rows if row.id not in self.rows]  # what was written down first counts
        self.log.append(fresh)
        self.rows.update((row.id, row) for row in fresh)

    def finish(self, rows: Iterable[Any], counts: Mapping[str, int], cost: float = 0.0) -> None:
        """Write the whole output, then the manifest, and clear away what only an unfinished stage needs.

        Args:
            rows: all of them, in the order of the input.
            counts: what a reader wants to know of them.
            cost: US dollars.
        """
        write_records(self.output, rows)
        content = {
            **self._identity,
            "output": {"file": self.output.name, "sha256": file_sha256(self.output)},
            "counts": dict(counts),
            "cost": cost,
            "seconds": round(time.monotonic() - self._began, 1),
            "finished": now(),
            "code": code_record(),
        }
        durable.replace_file(manifest_path(self.output), _json(content))
        self.log.close()
        for path in [*partial_paths(self.output), _begun_path(self.output)]:
            path.unlink(missing_ok=True)
        self.done = True


@contextmanager
def open_stage(
    name: str, output: Path, kind: type, inputs: Mapping[str, Path], settings: Mapping[str, Any]
) -> Iterator[Stage]:
    """Begin a stage, or go on with it; one process at a time (of several ranks, rank 0).

    Args:
        name: "generate", "judge", ...
        output: the file that it makes.
        kind: dataclass of its rows, with an `id`.
        inputs: what it reads, by a name.
        settings: what changes its rows; plain JSON values. A stage is continued with the same inputs and settings only.

    Raises:
        StageError: an input is missing, another process is at it, it was begun or done with other inputs or
            settings, its output was changed afterwards, or another file lies in its place.
    """
    for each, path in inputs.items():
        if not path.is_file():
            raise StageError(f"{path}: there is no such file ({each} of the stage {name}) in {Path.cwd()}")
    output.parent.mkdir(parents=True, exist_ok=True)
    files = {each: {"file": str(path), "sha256": file_sha256(path)} for each, path in inputs.items()}
    identity = redact({"stage": name, "inputs": files, "settings": json.loads(json.dumps(settings))})
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(output.with_name(f".{output.name}.lock"), timeout=0))
        except Timeout as error:
            raise StageError(f"{output} is being made by another process: wait for it, or end it") from error
        manifest = read_manifest(output)
        if manifest is not None:
            _require_same(output, manifest, identity, "was made")
            if not output.exists() or file_sha256(output) != manifest["output"]["sha256"]:
                raise StageError(
                    f"{output} is not as it was when it was made: restore it, or remove it and "
                    f"{manifest_path(output).name} to have it made anew"
                )
            yield Stage(output, done=True)
            return
        begun, rows = _begun_path(output), {}
        for path in partial_paths(output):
            with RecordLog(path, kind) as log:
                rows |= log.rows
        if rows and begun.exists():
            _require_same(output, json.loads(begun.read_bytes()), identity, "was begun")
        elif rows:
            partial = partial_path(output)
            raise StageError(
                f"{begun} is missing, so what {partial.name} was made of is not known: remove {partial.name}"
            )
        elif output.exists() and not begun.exists():
            raise StageError(f"{output} is there and was made by no stage: choose another output, or move it away")
        else:  # nothing would be lost
            durable.replace_file(begun, _json(identity))
        log = held.enter_context(RecordLog(partial_path(output), kind))
        yield Stage(output, False, log, rows, identity)


def _require_same(output: Path, old: Mapping[str, Any], new: Mapping[str, Any], was: str) -> None:
    keys = ("inputs", "settings")
    # by content: where a file lies does not matter
    trees = [{key: tree[key] for key in keys} for tree in (old, new)]
    for tree in trees:
        tree["inputs"] = {name: entry["sha256"] for name, entry in tree["inputs"].items()}
    changes = config_changes(*trees)
    if changes:
        raise StageError(
            f"{output} {was} with other inputs or settings:\n  " + "\n  ".join(changes) + "\n"
            f"Set these back, choose another output, or remove {output.name}* there to make it anew"
        )


def _begun_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.begun.json")


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
