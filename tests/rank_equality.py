"""Run by test_equality.py as one of several ranks: loss and gradients of one global batch, for each of some settings.

Usage: rank_equality.py FOLDER SETTING...   with SETTING = stage:contrast:micro_batch_tokens:reduction
Writes FOLDER/<setting>@<world size>.pt = {"loss": float, "micro_batches": int, "gradients": {name: tensor}} on rank 0.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from cut_dist.config import Config, to_config
from cut_dist.data.examples import Example
from cut_dist.data.packing import rank_micro_batches
from cut_dist.step_stats import SUMS

SIZES = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip


def make_config(stage: int, contrast: str, micro_batch_tokens: int, reduction: str) -> Config:
    zero = {"stage": stage, **({"stage3_param_persistence_threshold": 0} if stage == 3 else {})}
    return to_config({
        "model": {"random_init": SIZES, "tokenizer": "bytes", "checkpointing": "full"},
        "data": {"path": "unused", "heldout_size": 1},
        "objective": {"lam": 1.05, "alpha": 0.7, "gamma": 0.5, "contrast": contrast, "reduction": reduction},
        "train": {"micro_batch_tokens": micro_batch_tokens, "precision": "fp32", "lr": 1e-3},
        "deepspeed": {"zero_optimization": zero},
    })  # fmt: skip


def make_examples(count: int = 9, seed: int = 0) -> list[Example]:
    """Examples of very different lengths, about two in three of Align-N."""
    rng = np.random.default_rng(seed)

    def ids(low: int, high: int) -> np.ndarray:
        return rng.integers(0, 256, rng.integers(low, high)).astype(np.int32)

    examples = []
    for i in range(count):
        negative = i % 3 != 2
        prompts = {"instruction": ids(3, 20)}
        if negative:
            prompts |= {"authentic": ids(10, 40), "fake": ids(5, 25)}
        examples.append(Example(f"e{i}", negative, prompts, ids(1, 30)))
    return examples


def main(folder: str, *settings: str) -> None:
    from deepspeed.utils import safe_get_full_grad

    from cut_dist.engine.build import build_engine
    from cut_dist.engine.launch import start_process, stop_process
    from cut_dist.train import accumulate, pack_batch

    ranks = start_process()
    examples = make_examples()
    for setting in settings:
        stage, contrast, tokens, reduction = setting.split(":")
        cfg = make_config(int(stage), contrast, int(tokens), reduction)
        engine = build_engine(cfg, ranks)
        sums = accumulate(engine, pack_batch(examples, cfg, ranks), cfg, ranks, None)
        torch.distributed.all_reduce(sums)
        gradients = {name: safe_get_full_grad(p) for name, p in engine.module.causal_lm.named_parameters()}
        batches = {"rank": 0, "world_size": ranks.world_size, "token_budget": int(tokens)}
        micros = rank_micro_batches(examples, contrast=contrast, reduction=reduction, **batches)
        if ranks.is_main:
            result = {
                "loss": sums[SUMS.index("loss")].item(),
                "norm": sums[SUMS.index("gradient_square")].sqrt().item(),
                "micro_batches": len(micros),
                "gradients": {k: v.clone() for k, v in gradients.items()},
            }
            torch.save(result, Path(folder) / f"{setting.replace(':', '_')}@{ranks.world_size}.pt")
    stop_process()


if __name__ == "__main__":
    main(*sys.argv[1:])
