"""Triplets of the study as files, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cut_dist import durable
from cut_dist.config import DataConfig

TEMPLATE = "chat"


def data_config(triplets: Path, folder: Path) -> DataConfig:
    """How the laboratory's triplets are read."""
    return DataConfig(
        path=str(triplets), template=TEMPLATE, max_length=256, max_judgment_tokens=200,
        on_bad_row="skip",  # where a model's refinement is empty, ILF leaves the row out
        cache_dir=str(folder / "cache"),
    )  # fmt: skip


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace_file(path, "".join(json.dumps(r) + "\n" for r in rows).encode())
