"""Instruction files: JSONL rows with their checks, written for a user or a round, and read back strictly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cut_dist.data.records import read_json_records
from cut_dist.data.triplets import DataError
from cut_dist.durable import replace_file
from cut_dist.verifiable.generate import make_instructions
from cut_dist.verifiable.registry import CheckError, make_checks
from cut_dist.verifiable.tasks import Split
from cut_dist.wording import nearest

_FIELDS = ("id", "instruction", "metadata")


def write_instructions(
    path: Path,
    *,
    count: int,
    seed: int,
    split: Split,
    start: int = 0,
    max_checks: int = 2,
    kinds: Sequence[str] | None = None,
) -> int:
    """Write generated instructions to a JSONL file, whole or not at all; arguments as of `make_instructions`.

    Returns:
        How many rows were written.
    """
    rows = make_instructions(count, seed, split, start=start, max_checks=max_checks, kinds=kinds)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return len(rows)


def read_instructions(path: Path) -> list[dict[str, Any]]:
    """Rows of an instruction file (JSONL or a JSON array), each with its checks tried.

    Raises:
        DataError: no such file, or rows that can't be used: each named by file and line with what is wrong.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of instructions")
    rows, faults, ids = [], [], {}
    for record in read_json_records(str(path)):
        fault = record.problem or _fault(record.fields)
        if not fault and (first := ids.setdefault(record.fields["id"], record.source)) != record.source:
            fault = f"the id '{record.fields['id']}' is taken by {first}"
        if fault:
            faults.append(f"{record.source}: {fault}")
        rows.append(record.fields)
    if faults:
        more = f"\nand {len(faults) - 10:,} more" if len(faults) > 10 else ""
        raise DataError(f"{len(faults):,} of {len(rows):,} rows can't be used:\n" + "\n".join(faults[:10]) + more)
    return rows


def _fault(row: dict[str, Any]) -> str | None:
    """What is wrong with a row, or None."""
    for name in row:
        if name not in _FIELDS:
            match = nearest(name, _FIELDS)
            hint = f"; did you mean '{match}'?" if match else f" (fields: {', '.join(_FIELDS)})"
            return f"unknown field '{name}'{hint}"
    for name in ("id", "instruction"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            return f"'{name}' must be text that is not blank"
    metadata = row.get("metadata")
    if not isinstance(metadata, dict) or "checks" not in metadata:
        return "'metadata' must be an object with 'checks'"
    try:
        make_checks(metadata["checks"])
    except CheckError as error:
        return str(error)
    return None
