"""The rows that go from stage to stage, as JSON lines, and a log of them that survives a kill.

instructions.jsonl   Instruction     what to answer, and what is known of it
responses.jsonl      Response        an answer, with how it was sampled
judgments.jsonl      judges.Judged   what the judge says of it
triplets.jsonl       what training reads: id, instruction, response, judgment (null: Align-P)
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from cut_dist import durable
from cut_dist.wording import UserError

Record = TypeVar("Record")


class RecordError(UserError, ValueError):
    """A file of records that can't be read; the message names file, line and remedy."""


@dataclass(frozen=True)
class Instruction:
    """Something to answer.

    Attributes:
        id: unique over all rounds.
        instruction: the words.
        metadata: plain JSON values, such as the checks of a verifiable instruction; judges get them too.
    """

    id: str
    instruction: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """An answer to an instruction, which it repeats so that the file says all by itself.

    Attributes:
        id: `instruction_id`, and from the second sample on `<instruction_id>#2`.
        finish_reason: "stop" or "length", see `generators.base.Generation`.
        sampling: generator, model, temperature, seed and the like.
    """

    id: str
    instruction_id: str
    instruction: str
    response: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    response_tokens: int
    sampling: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """All rows of a JSONL file, in order.

    Raises:
        RecordError: the file is missing, a line is no such row, or an id comes twice.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RecordError(f"{path} can't be read: {error.strerror}") from error
    rows, seen = [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _parse(line, kind, f"{path}:{number}")
        if row.id in seen:
            raise RecordError(f"{path}:{number}: the id {row.id!r} comes twice; give each row its own")
        seen.add(row.id)
        rows.append(row)
    return rows


def write_records(path: Path, rows: Iterable[Any]) -> None:
    """Write rows as JSONL: all of them, or after a crash none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace_file(path, b"".join(map(_line, rows)))


class RecordLog:
    """Rows written down one group at a time as they come, in any order; a context manager.

    What a kill left of a half-written line is cut off at the next start, so a row is there whole or not at all. A row
    whose id is there already is left out: it was paid for twice, but counts once.
    """

    def __init__(self, path: Path, kind: type[Record]) -> None:
        self.path = path
        self.rows: dict[str, Record] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.ftruncate(self._file, len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            row = _parse(line, kind, f"{path}:{number}")
            self.rows.setdefault(row.id, row)

    def append(self, rows: Iterable[Record]) -> None:
        """Write a group down and sync it: after the return it is paid for no more."""
        fresh = [row for row in rows if row.id not in self.rows]
        data = memoryview(b"".join(map(_line, fresh)))
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)
        self.rows.update((row.id, row) for row in fresh)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> RecordLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _line(row: Any) -> bytes:
    content = dataclasses.asdict(row) if dataclasses.is_dataclass(row) else row
    return (json.dumps(content, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _parse(line: bytes, kind: type[Record], place: str) -> Record:
    try:
        content = json.loads(line.decode("utf-8", "surrogatepass"))
        names = [each.name for each in dataclasses.fields(kind)]
        return kind(**{name: content[name] for name in names if name in content})
    except (ValueError, TypeError) as error:
        wanted = ", ".join(each.name for each in dataclasses.fields(kind))
        raise RecordError(f"{place}: is no {kind.__name__} ({error}); a line holds {wanted}") from error
