"""Run by test_equality.py as one of several ranks: loss and gradients of one global batch, for each of some settings.

Usage: rank_equality.py FOLDER SETTING...
with SETTING = stage:contrast:micro_batch_tokens:reduction[:context_split:checkpointing]
Writes FOLDER/<setting>@<world size>.pt on rank 0: loss, norm, micro_batches, gradients, which layers were checkpointed,
and under ZeRO-3 how often each parameter was gathered, in the first step and in the second.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from cut_dist.config import Config, to_config
from cut_dist.data.examples import Example
from cut_dist.data.packing import CONTRASTS, example_weights
from cut_dist.kernels.cut_loss import cut_token_loss_reference
from cut_dist.step_stats import SUMS

SIZES = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip


# Bytes for activations on each rank, for checkpointing=selective with micro-batches of 200 tokens: room for both layers
# on rank 0, for one on rank 1.
ROOM = (1 << 40, 1_460_000)


def make_config(
    stage: int, contrast: str, micro_batch_tokens: int, reduction: str, split: str = "auto", checkpointing: str = "full"
) -> Config:
    # each weight is gathered for its turn and released after it, as in a model that is larger than these buffers
    buffers = ("param_persistence_threshold", "prefetch_bucket_size", "max_reuse_distance")
    partitioned = {f"stage3_{name}": 0 for name in buffers}
    zero = {"stage": stage, **(partitioned if stage == 3 else {})}
    model = {"random_init": SIZES, "tokenizer": "bytes", "context_split": split, "checkpointing": checkpointing}
    return to_config({
        "model": model,
        "data": {"path": "unused", "heldout_size": 1, "max_length": 64, "max_judgment_tokens": 32},
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


def loss_by_contexts(causal_lm, examples: list[Example], cfg: Config) -> torch.Tensor:
    """The loss of a global batch as the paper writes it: a forward for every context of every example (eq. 5 to 7)."""
    total = 0.0
    for example, weight in zip(examples, example_weights(examples, cfg.objective.reduction)):
        response = torch.from_numpy(example.response_ids).long()
        logits = {}
        for context in CONTRASTS[cfg.objective.contrast] if example.is_negative else ("instruction",):
            prompt = torch.from_numpy(example.prompt_ids[context]).long()
            out = causal_lm(torch.cat([prompt, response])[None]).logits[0]
            logits[context] = out[len(prompt) - 1 : -1]
        loss = cut_token_loss_reference(
            logits["instruction"], logits.get("authentic", logits["instruction"]), logits.get("fake"), response,
            lam=cfg.objective.lam, alpha=cfg.objective.alpha, gamma=cfg.objective.gamma,
            is_negative=torch.full((len(response),), example.is_negative),
            token_weight=torch.full((len(response),), weight, dtype=logits["instruction"].dtype),
        )  # fmt: skip
        total = total + loss.loss
    return total


def config_of(setting: str) -> Config:
    stage, contrast, tokens, reduction, *layers = setting.split(":")
    return make_config(int(stage), contrast, int(tokens), reduction, *layers)


def count_gathers(engine) -> Counter[str]:
    """Counts from now on, by name, how often DeepSpeed gathers each parameter."""
    counts: Counter[str] = Counter()
    names = {p: name for name, p in engine.module.causal_lm.named_parameters()}
    for parameter in names:
        gather = parameter.all_gather_coalesced

        def counting(params, *args, gather=gather, **kwargs):
            counts.update(names[p] for p in params)
            return gather(params, *args, **kwargs)

        parameter.all_gather_coalesced = counting
    return counts


def main(folder: str, *settings: str) -> None:
    from deepspeed.utils import safe_get_full_grad

    from cut_dist.engine import activations, gradients
    from cut_dist.engine.build import build_engine
    from cut_dist.engine.launch import start_process, stop_process
    from cut_dist.model.layers import decoder_layers
    from cut_dist.train import accumulate, pack_batch

    ranks = start_process()
    examples = make_examples()
    activations.room_bytes = lambda engine, ranks: ROOM[ranks.rank]
    for setting in settings:
        cfg = config_of(setting)
        engine = build_engine(cfg, ranks)
        counts = count_gathers(engine) if setting[0] == "3" else Counter()
        micro_batches = pack_batch(examples, cfg, ranks)
        sums = accumulate(engine, micro_batches, cfg, ranks, None)
        torch.distributed.all_reduce(sums)
        result = {
            "loss": sums[SUMS.index("loss")].item(),
            "norm": sums[SUMS.index("gradient_square")].sqrt().item(),
            "micro_batches": len(micro_batches),
            "checkpointed": [layer.forward.checkpointed for layer in decoder_layers(engine.module.causal_lm)],
            "gathers": [dict(counts)],
        }
        parameters = engine.module.causal_lm.named_parameters()
        result["gradients"] = {name: safe_get_full_grad(p).clone() for name, p in parameters}
        gradients.discard(engine)
        counts.clear()
        accumulate(engine, micro_batches, cfg, ranks, None)  # DeepSpeed knows the order of the layers now
        result["gathers"].append(dict(counts))
        if ranks.is_main:
            torch.save(result, Path(folder) / f"{setting.replace(':', '_')}@{ranks.world_size}.pt")
    stop_process()


if __name__ == "__main__":
    main(*sys.argv[1:])
