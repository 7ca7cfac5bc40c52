"""Held-out triplets: per-token probabilities in all contexts, what they say in sum, and sample generations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from cut_dist import durable
from cut_dist.config import Config
from cut_dist.data.examples import Example
from cut_dist.data.packing import PackedBatch, rank_micro_batches
from cut_dist.data.templates import Tokenizer
from cut_dist.kernels.cut_loss import CutTokenLoss
from cut_dist.preview.tokens import token_texts

if TYPE_CHECKING:
    from cut_dist.engine.launch import Ranks  # starts DeepSpeed, which a preview does without

T = TypeVar("T")


@dataclass(frozen=True)
class TokenRecord:
    """What the model says of one example, per response token: N floats each (nats), N bools.

    `logp_authentic` and `logp_fake` are empty for Align-P examples. `loss` is the example's own CUT loss, L1 + L2, and
    the inappropriate tokens are CUT's, whatever `objective.without` leaves out of training.
    """

    id: str
    is_negative: bool
    loss: float
    logp: np.ndarray
    logp_authentic: np.ndarray
    logp_fake: np.ndarray
    inappropriate: np.ndarray


def token_records(engine, examples: Sequence[Example], cfg: Config, ranks: Ranks) -> list[TokenRecord]:
    """One record for each example, in order, on all ranks. A collective: all ranks call it with the same examples."""
    return per_example(engine, examples, cfg, ranks, lambda batch, out: split_records(batch, out, examples))


@torch.no_grad()
def per_example(
    engine, examples: Sequence[Example], cfg: Config, ranks: Ranks,
    read: Callable[[PackedBatch, CutTokenLoss], dict[int, T]],
) -> list[T]:  # fmt: skip
    """What `read` makes of a micro-batch and the engine's output (example's index → T), in order, on all ranks.

    A collective. Under `no_grad`, not `inference_mode`, which ZeRO-3 does not survive.
    """
    if not examples:
        return []
    was_training = engine.module.training
    engine.eval()
    found: dict[int, T] = {}
    for batch in rank_micro_batches(
        examples,
        contrast=cfg.objective.contrast,
        reduction="example_mean",
        rank=ranks.rank,
        world_size=ranks.world_size,
        token_budget=cfg.train.micro_batch_tokens,
    ):
        found.update(read(batch, engine(batch.to(ranks.device))))
    engine.train(was_training)
    everyone: list[dict[int, T]] = [{}] * ranks.world_size
    dist.all_gather_object(everyone, found)
    merged = {index: value for part in everyone for index, value in part.items()}
    return [merged[index] for index in range(len(examples))]


def split_records(batch: PackedBatch, out: CutTokenLoss, examples: Sequence[Example]) -> dict[int, TokenRecord]:
    """Cut a micro-batch's rows into examples: index → record."""
    names = ("loss_instruction", "loss_authentic", "logp", "logp_authentic", "logp_fake", "inappropriate")
    rows = {name: getattr(out, name).cpu().numpy() for name in names}
    records, begin = {}, 0
    for index, count in zip(batch.examples, batch.row_counts):
        own = {name: values[begin : begin + count] for name, values in rows.items()}
        begin += count
        negative = examples[index].is_negative
        records[index] = TokenRecord(
            id=examples[index].id,
            is_negative=negative,
            loss=float((own["loss_instruction"] + own["loss_authentic"]).mean()),
            logp=own["logp"],
            logp_authentic=own["logp_authentic"] if negative else own["logp_authentic"][:0],
            logp_fake=own["logp_fake"] if negative else own["logp_fake"][:0],
            inappropriate=own["inappropriate"],
        )
    return records


def summarise(records: Sequence[TokenRecord], reference: dict[str, list[bool]]) -> dict[str, float]:
    """Held-out metrics. Losses are means over examples, probabilities means over tokens.

    Args:
        records: of the current model.
        reference: example id → which of its tokens were inappropriate when it was first evaluated, as a rule before
            training. The detection moves as the model learns; this is the set that stays the same.

    Returns:
        `loss`, `nll_instruction` (all examples), `nll_align_p`, `nll_authentic`, `nll_fake` (Align-N),
        `p_inappropriate`, `p_others` (the other tokens of Align-N responses), `p_align_p`; by what the current model
        detects `p_inappropriate_now` and `share_inappropriate`. A key is left out where no token counts for it.
    """
    negatives = [r for r in records if r.is_negative]
    positives = [r for r in records if not r.is_negative]
    values = {
        "loss": [r.loss for r in records],
        "nll_instruction": [-r.logp.mean() for r in records],
        "nll_align_p": [-r.logp.mean() for r in positives],
        "nll_authentic": [-r.logp_authentic.mean() for r in negatives],
        "nll_fake": [-r.logp_fake.mean() for r in negatives],
        "p_inappropriate": _probabilities(negatives, [np.array(reference[r.id], bool) for r in negatives]),
        "p_others": _probabilities(negatives, [~np.array(reference[r.id], bool) for r in negatives]),
        "p_inappropriate_now": _probabilities(negatives, [r.inappropriate for r in negatives]),
        "p_align_p": _probabilities(positives, [np.ones(len(r.logp), bool) for r in positives]),
        "share_inappropriate": [float(flag) for r in negatives for flag in r.inappropriate],
    }
    return {name: float(np.mean(numbers)) for name, numbers in values.items() if len(numbers)}


def _probabilities(records: Sequence[TokenRecord], masks: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.exp(r.logp[mask]) for r, mask in zip(records, masks)] or [np.empty(0)])


def reference_tokens(path: Path, records: Sequence[TokenRecord]) -> dict[str, list[bool]]:
    """The run's fixed set of inappropriate tokens: each example's as it is first evaluated, kept in `path`."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    fresh = {r.id: r.inappropriate.tolist() for r in records if r.is_negative and r.id not in stored}
    if fresh:
        durable.replace_file(path, json.dumps(stored | fresh).encode())
    return stored | fresh


def judged_tokens(
    records: Sequence[TokenRecord], examples: Sequence[Example], tokenizer: Tokenizer, limit: int
) -> list[dict]:
    """The tokens of Align-N responses as a table, whole responses while they fit and the first one in any case.

    Args:
        records, examples: side by side, as `token_records` takes and returns them.
        limit: rows.

    Returns:
        `{id, position, token, inappropriate, p_instruction, p_authentic, p_fake}` for each token; p_fake is that of
        the context that stands for j⁺.
    """
    rows: list[dict] = []
    for record, example in zip(records, examples):
        if not record.is_negative or (rows and len(rows) + len(record.logp) > limit):
            continue
        texts = token_texts(tokenizer, example.response_ids.tolist(), example.prompt_ids["instruction"].tolist())
        contexts = np.exp([record.logp, record.logp_authentic, record.logp_fake]).T.tolist()
        for i, (text, flag, p) in enumerate(zip(texts, record.inappropriate.tolist(), contexts)):
            named = dict(zip(("p_instruction", "p_authentic", "p_fake"), p))
            rows.append({"id": record.id, "position": i, "token": text, "inappropriate": flag, **named})
    return rows[:limit]


@torch.no_grad()
def generate(engine, tokenizer, examples: Sequence[Example], max_new_tokens: int, ranks: Ranks) -> list[dict]:
    """Greedy answers to the examples' instructions. A collective; all ranks answer the same prompts in step.

    Returns:
        One `{id, prompt, response}` for each example.
    """
    model = engine.module.causal_lm
    was_training = engine.module.training
    engine.eval()
    rows = []
    for example in examples:
        prompt = torch.from_numpy(example.prompt_ids["instruction"].astype(np.int64))[None].to(ranks.device)
        answer = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            synced_gpus=ranks.world_size > 1,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )[0, prompt.shape[1] :]
        text = tokenizer.decode(answer, skip_special_tokens=True)
        asked = tokenizer.decode(prompt[0], skip_special_tokens=True)
        rows.append({"id": example.id, "prompt": asked, "response": text})
    engine.train(was_training)
    return rows


def train_sample(train: Sequence[Example], count: int) -> list[Example]:
    """At most `count` training examples, spread evenly over the file; the same ones at every evaluation."""
    count = min(count, len(train))
    return [train[i * len(train) // count] for i in range(count)]


def generation_examples(heldout: Sequence[Example], count: int) -> list[Example]:
    """Which held-out prompts are answered: Align-N first, since those are the ones that should change."""
    return sorted(heldout, key=lambda e: not e.is_negative)[:count]
