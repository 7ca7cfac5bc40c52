"""The loss of the objectives that are measured apart from CUT, and the reference of ilf_dpo.

A reference is computed once, with the weights that the run starts from, and kept in the run's folder: a run that goes
on has other weights by then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cut_dist import durable
from cut_dist.config import Config
from cut_dist.data.examples import Example, Prepared
from cut_dist.data.packing import PackedBatch
from cut_dist.evaluate import per_example
from cut_dist.wording import UserError

if TYPE_CHECKING:
    from cut_dist.engine.launch import Ranks
    from cut_dist.kernels.cut_loss import CutTokenLoss

REFERENCE = "reference.json"


class ReferenceLost(UserError, RuntimeError):
    """A run that goes on lacks the reference it began with."""


def term_logps(engine, examples: Sequence[Example], cfg: Config, ranks: Ranks) -> list[list[np.ndarray]]:
    """Per example and term, log p of each response token in the instruction context. A collective."""
    return per_example(engine, examples, cfg, ranks, _split_terms)


def _split_terms(batch: PackedBatch, out: CutTokenLoss) -> dict[int, list[np.ndarray]]:
    logp, terms = out.logp.cpu().numpy(), {}
    for index, part in zip(batch.examples, np.split(logp, np.cumsum(batch.row_counts)[:-1])):
        terms.setdefault(index, []).append(part)
    return terms


def own_metrics(engine, examples: Sequence[Example], cfg: Config, ranks: Ranks) -> dict[str, float]:
    """`loss` of the objective, a mean over examples, and for ilf_dpo its rewards; empty without examples.

    A collective.
    """
    logps = term_logps(engine, examples, cfg, ranks)
    if not examples:
        return {}
    if cfg.objective.name != "ilf_dpo":
        return {"loss": float(np.mean([-sum(float(part.mean()) for part in parts) for parts in logps]))}
    margins = [_margin(parts) - example.reference_margin for parts, example in zip(logps, examples)]
    rewards = cfg.objective.beta * np.array(margins)
    return {
        "loss": float(np.logaddexp(0, -rewards).mean()),
        "reward_margin": float(rewards.mean()),
        "reward_accuracy": float((rewards > 0).mean()),
    }


def with_reference(engine, data: Prepared, cfg: Config, ranks: Ranks, folder: Path, step: int) -> Prepared:
    """The data with `reference_margin` of every pair, read from the run's folder or computed before step 0.

    A collective.

    Raises:
        ReferenceLost: on all ranks, if it is missing or of other data and the weights have changed since.
        MainRankError: on all ranks, if it is damaged.
    """
    from cut_dist.engine.state import on_main

    path = folder / REFERENCE
    margins = on_main(ranks, lambda: _read(path, data.content_hash), "read the reference")
    if margins is None and step > 0:
        raise ReferenceLost(
            f"{path} is missing or of other data, and after step {step} its log-probabilities can't be computed any "
            "more: restore the file, or begin anew with run.resume=never"
        )
    pairs = [*data.train, *data.heldout_own]
    if margins is None:
        margins = [_margin(parts) for parts in term_logps(engine, pairs, cfg, ranks)]
        content = {"data_content": data.content_hash, "ids": [pair.id for pair in pairs], "margins": margins}
        on_main(ranks, lambda: durable.replace_file(path, json.dumps(content).encode()), "keep the reference")
    known = [replace(pair, reference_margin=margin) for pair, margin in zip(pairs, margins, strict=True)]
    return replace(data, train=known[: len(data.train)], heldout_own=known[len(data.train) :])


def _margin(parts: Sequence[np.ndarray]) -> float:
    """log π(chosen) − log π(rejected), sums over tokens."""
    chosen, rejected = (float(part.sum(dtype=np.float64)) for part in parts)
    return chosen - rejected


def _read(path: Path, content_hash: str) -> list[float] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        return content["margins"] if content["data_content"] == content_hash else None
    except (ValueError, KeyError, TypeError) as error:
        raise ReferenceLost(f"{path} is damaged; restore the file, or begin anew with run.resume=never") from error
