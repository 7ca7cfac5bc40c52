"""The examples of suite=step: real triplets as tokens of the model's tokenizer, or of nearly their length."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cut_dist.benchmark.config import BenchmarkJobConfig
from cut_dist.config import ModelConfig
from cut_dist.data.examples import Example
from cut_dist.data.prepare import prepare
from cut_dist.model.load import load_tokenizer

log = logging.getLogger(__name__)

# The released scheme holds six times 16·longest·V numbers: 14 GB in float32 for 768 tokens of V = 49152.
MAX_LENGTH = {"cpu": 768, "cuda": 1024}
BYTES_PER_TOKEN = 4  # of English text in a vocabulary of 32000


def step_examples(
    cfg: BenchmarkJobConfig, model: ModelConfig, device: torch.device
) -> tuple[list[Example], dict[str, Any]]:
    """The training examples and what they are: file, counts, content hash.

    A model with random weights reads bytes; every fourth is kept, so that lengths are those of a real vocabulary. Its
    numbers mean nothing, its times do.
    """
    length = cfg.step.max_length or MAX_LENGTH[device.type]
    scale = BYTES_PER_TOKEN if model.tokenizer == "bytes" else 1
    data = cfg.data
    if cfg.step.triplets and not Path(cfg.step.triplets).is_file():
        text = "step.triplets=%s is no file here: the data section's triplets are taken, which may be short for a GPU"
        log.warning(text, cfg.step.triplets)
    elif cfg.step.triplets:
        data = replace(
            data, path=cfg.step.triplets, format="auto", template="alpaca", align_p_ratio=0.25, heldout_path=None,
            heldout_size=0, max_length=length, max_judgment_tokens=length * 3 // 4, on_bad_row="skip",
        )  # fmt: skip
    data = replace(data, max_length=data.max_length * scale, max_judgment_tokens=data.max_judgment_tokens * scale)
    prepared = prepare(data, load_tokenizer(model), seed=cfg.seed, fake_judgment=cfg.objective.fake_judgment)
    described = {"file": Path(data.path).name, "content_hash": prepared.content_hash, "counts": prepared.counts}
    described["kept_of_each_text"] = f"1/{scale}"
    return [_thinned(example, scale) for example in prepared.train], described


def _thinned(example: Example, scale: int) -> Example:
    prompts = {context: ids[::scale] for context, ids in example.prompt_ids.items()}
    return replace(example, prompt_ids=prompts, response_ids=example.response_ids[::scale])
