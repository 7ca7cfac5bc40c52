"""Probabilities of given responses, token by token, in all contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cut_dist.config import ModelConfig
from cut_dist.data.prepare import prepare
from cut_dist.evaluate import TokenRecord
from cut_dist.model.load import load_tokenizer
from cut_dist.preview.measure import measure
from cut_dist.study.rows import data_config, write_rows

if TYPE_CHECKING:
    from cut_dist.study.config import StudyConfig


def token_records(
    cfg: StudyConfig, folder: Path, model: str | Path, rows: Sequence[Mapping[str, Any]]
) -> list[TokenRecord]:
    """What `model` says of the responses of `rows`, triplets as they stand in a file.

    Args:
        folder: of the laboratory. Rows and what is prepared of them lie in it meanwhile, in a folder of their own:
            other processes measure in this laboratory at the same time.
    """
    with TemporaryDirectory(dir=folder, prefix="measured-") as own:
        path = Path(own) / "rows.jsonl"
        write_rows(path, rows)
        cfg = replace(
            cfg, model=ModelConfig(name_or_path=str(model), checkpointing="none"), data=data_config(path, Path(own)),
            objective=replace(cfg.objective, name="cut", contrast="fake"),
        )  # fmt: skip
        tokenizer = load_tokenizer(cfg.model)
        data = prepare(cfg.data, tokenizer, seed=0, fake_judgment=cfg.objective.fake_judgment)
        return [measured.record for measured in measure(cfg, data.train)]
