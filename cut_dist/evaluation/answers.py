"""The model's answers to a suite's instructions: greedy, by the generators of the rounds, never made twice.

<folder>/instructions.jsonl   what is asked
<folder>/responses.jsonl      the answers, with the manifest of the stage that made them
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cut_dist.online.config import OnlineConfig
from cut_dist.online.generating import generate_stage
from cut_dist.online.records import Instruction, Response, read_records, write_records

INSTRUCTIONS, RESPONSES = "instructions.jsonl", "responses.jsonl"


def answer(cfg: OnlineConfig, instructions: Sequence[Instruction], folder: Path) -> None:
    """Write the greedy answers into `folder`, or go on where an earlier start was interrupted.

    Raises:
        StageError: the folder holds answers of another model, to other instructions or made with other settings.
        ConfigError, DataError: it can't be generated; the message says why.
    """
    source = folder / INSTRUCTIONS
    if not source.exists() or read_records(source, Instruction) != list(instructions):
        write_records(source, instructions)
    generate_stage(_greedy(cfg), source, folder / RESPONSES)


def read_answers(folder: Path) -> list[Response]:
    """The answers in `folder`, in the order of the instructions."""
    return read_records(folder / RESPONSES, Response)


def _greedy(cfg: OnlineConfig) -> OnlineConfig:
    """Decoding as the paper evaluates: greedy, one answer, up to `evaluation.max_new_tokens`."""
    generator = dataclasses.replace(
        cfg.generator, temperature=0.0, top_p=1.0, samples=1, max_new_tokens=cfg.evaluation.max_new_tokens
    )
    return dataclasses.replace(cfg, generator=generator)
