"""What W&B wrote without a network, read back from its own file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path


def read_records(path: Path) -> Iterator:
    """The protobuf records of a .wandb file: a 7-byte header, then LevelDB's log format in 32 KiB blocks."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]  # 1 whole, 2 first, 3 middle, 4 last part of a record
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def offline_file(run_dir: Path) -> Path:
    (path,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    return path


def finished_records(run_dir: Path) -> list:
    """All records of a finished run, for whose last bytes W&B's helper process may need a moment more."""
    for _ in range(100):
        records = list(read_records(offline_file(run_dir)))
        if any(record.HasField("exit") for record in records):
            break
        time.sleep(0.1)
    return records


def items(entries) -> dict:
    return {entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


def artifacts(records: list) -> dict[str, list]:
    """Artifact records by name; W&B may repeat one for its upload."""
    found: dict[str, list] = {}
    for record in records:
        if record.HasField("request") and record.request.HasField("log_artifact"):
            artifact = record.request.log_artifact.artifact
        elif record.HasField("artifact"):
            artifact = record.artifact
        else:
            continue
        found.setdefault(artifact.name, []).append(artifact)
    return found
