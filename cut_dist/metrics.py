"""metrics.jsonl: one JSON object a line, readable while the run goes on and after any kill."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cut_dist import durable

log = logging.getLogger(__name__)

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class MetricsError(RuntimeError):
    """metrics.jsonl holds a line that is no record; the message names the line."""


class MetricsLog:
    """Appends records to a JSON-lines file; every record has an integer `step`.

    Floats keep every bit. NaN and infinities, which JSON lacks, are written as the strings "nan", "inf",
    "-inf", and `read_metrics` turns them back. One process writes; a last line cut off by a kill is
    repaired on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _repair_tail(path)
        self._file = path.open("ab", buffering=0)

    def append(self, record: dict[str, Any]) -> None:
        """Writes one line, at once.

        Args:
            record: numbers (also 0-dimensional arrays and tensors), strings, lists, dicts; `step` is
                required.
        """
        step = record.get("step")
        if isinstance(step, bool) or not isinstance(step, int):
            raise ValueError(f"a metrics record needs an integer 'step', not {step!r}")
        line = (json.dumps(_plain(record), allow_nan=False) + "\n").encode()
        end = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            # On a full disk half a line may be in; the next record must not be glued to it.
            self._file.truncate(end)
            raise

    def sync(self) -> None:
        """Fsyncs; call it before a checkpoint is committed, so that no committed step lacks its metrics."""
        os.fsync(self._file.fileno())

    def truncate_after(self, step: int) -> int:
        """Drops the records of later steps, in one atomic rewrite: a resumed run writes them again.

        Returns:
            How many were dropped.
        """
        records = list(_parse(self.path))
        kept = [line for line, record in records if record["step"] <= step]
        if len(kept) < len(records):
            self._file.close()
            durable.replace_file(self.path, b"".join(kept))
            self._file = self.path.open("ab", buffering=0)
        return len(records) - len(kept)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete records of a metrics file, also of one that is being written.

    Raises:
        MetricsError: a line that ends with a newline is not a record.
    """
    return [_with_non_finite(record) for _, record in _parse(path)]


def _parse(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """(line with its newline, record) of every complete line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            record = _record(line)
            if record is None:
                raise MetricsError(f"{path}:{number} is not a metrics record: {line[:60]!r}. Remove the line")
            yield line, record


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _repair_tail(path: Path) -> None:
    """Cuts off trailing bytes that are no record: half a line, or the zeros that a power cut can leave."""
    if not path.exists():
        return
    data = path.read_bytes()
    end = len(data)
    while end and not (data[end - 1 : end] == b"\n" and _record(_last_line(data, end))):
        end = data.rfind(b"\n", 0, end - 1) + 1
    if end < len(data):
        log.warning("%s: cut off %d bytes at its end that are no record", path, len(data) - end)
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())


def _last_line(data: bytes, end: int) -> bytes:
    return data[data.rfind(b"\n", 0, end - 1) + 1 : end]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _with_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_non_finite(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
