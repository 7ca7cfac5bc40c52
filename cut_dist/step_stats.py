"""What a training step reports: sums that every rank adds up on its device, and the metrics they become.

All of a step's numbers, the vote on finiteness and the wish to stop travel in one small all-reduce, the only one of
the trainer's own, and the only value of a step that it asks of the device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from cut_dist.data.packing import PackedBatch, PackedPairs
from cut_dist.kernels.cut_loss import CutTokenLoss
from cut_dist.throughput import ModelShape, causal_pairs, forward_flops, memory_stats, mfu, peak_flops

if TYPE_CHECKING:
    from cut_dist.engine.launch import Ranks  # brings DeepSpeed, which launch/benchmark.py does without

SUMS = (
    "loss",  # of the global batch: the sum of the three below
    "loss/instruction",  # L1 of Align-N (paper eq. 6)
    "loss/authentic",  # L2 of Align-N (eq. 7)
    "loss/align_p",  # L2 of Align-P
    "examples",
    "response_tokens",  # of the instruction context
    "align_n_tokens",
    "inappropriate_tokens",
    "p_inappropriate",
    "weight_inappropriate",
    "p_others",
    "tokens",  # that went through the decoder, less those of fillers
    "flops",  # of the model, forward and backward; contexts that are only read need no backward
    "pairs",  # of ilf_dpo, and the two numbers below summed over them
    "reward_margin",
    "reward_accuracy",
    "gradient_square",
    "not_finite",  # ranks that saw a loss or gradient that is not finite
    "stop",  # ranks that were asked to stop
)


def micro_batch_sums(
    batch: PackedBatch, out: CutTokenLoss, *, alpha: float, gamma: float, shape: ModelShape | None
) -> torch.Tensor:
    """(len(SUMS),) float64 on the device; the last three entries are left 0.

    Args:
        alpha, gamma: of the objective, for the weights of the inappropriate tokens.
        shape: of the model, for its FLOPs; None where they are not known.
    """
    negatives = batch.rows_authentic.shape[0]
    weight = batch.token_weight.double()
    real = (weight > 0).double()
    if isinstance(batch, PackedPairs):
        weight = torch.zeros_like(weight)  # its loss is no sum over tokens
    instruction = weight * out.loss_instruction.double()
    authentic = weight * out.loss_authentic.double()
    p = out.logp.double().exp()
    inappropriate = out.inappropriate.double() * real
    others = (real - inappropriate)[:negatives]
    token_weights = alpha * (gamma * out.logp_authentic.double()).exp()

    def known(number: float) -> torch.Tensor:
        return torch.full_like(out.loss, number, dtype=torch.float64)  # filled on the device, without a copy

    return torch.stack([
        out.loss.detach().double(),
        instruction[:negatives].sum(),
        authentic.sum(),
        instruction[negatives:].sum(),
        known(len(set(batch.examples))),
        real.sum(),
        real[:negatives].sum(),
        inappropriate.sum(),
        (inappropriate * p).sum(),
        (inappropriate * token_weights).sum(),
        (others * p[:negatives]).sum(),
        known(batch.num_tokens if batch.examples else 0),
        known(model_flops(batch, shape) if batch.examples else 0),
        *(_preferences(batch, out) if isinstance(batch, PackedPairs) else [known(0)] * 3),
        known(0),
        known(0),
        known(0),
    ])  # fmt: skip


def _preferences(batch: PackedPairs, out: CutTokenLoss) -> list[torch.Tensor]:
    """Pairs that are no fillers, and over them the sums of the rewards' margins and of where they are above 0."""
    real = (batch.pair_weight > 0).double()
    margin = batch.beta * batch.margins(out.logp).double()
    return [real.sum(), (real * margin).sum(), (real * (margin > 0)).sum()]


def model_flops(batch: PackedBatch, shape: ModelShape | None) -> float:
    """FLOPs that the micro-batch asks of the model: three forwards' worth where a gradient is needed, one elsewhere."""
    if shape is None:
        return 0.0
    split = len(batch.segment_lengths) - batch.num_no_grad_segments
    negatives = batch.rows_authentic.shape[0]
    contexts = 1 if batch.rows_fake is None else 2  # beside the instruction, of Align-N examples only
    learned = batch.labels.shape[0] + negatives * (contexts - len(batch.no_grad))
    flops = 0
    for lengths, rows, passes in (
        (batch.segment_lengths[:split], learned, 3),
        (batch.segment_lengths[split:], negatives * len(batch.no_grad), 1),
    ):
        pairs = causal_pairs(lengths)
        flops += passes * forward_flops(shape, tokens=sum(lengths), pairs=pairs, head_rows=rows)
    return float(flops)


def step_metrics(sums: list[float], seconds: float, ranks: Ranks) -> dict[str, float]:
    """The vector summed over all ranks as named metrics, with speed and memory.

    Probabilities and weights are means over tokens; `tflops_per_rank` and `mfu` are there where the model's FLOPs and
    the accelerator's peak are known.
    """
    total = dict(zip(SUMS, sums))
    inappropriate, align_n = total["inappropriate_tokens"], total["align_n_tokens"]
    return {
        "loss": total["loss"],
        "loss/instruction": total["loss/instruction"],
        "loss/authentic": total["loss/authentic"],
        "loss/align_p": total["loss/align_p"],
        "examples": int(total["examples"]),
        "response_tokens": int(total["response_tokens"]),
        "tokens": int(total["tokens"]),
        "share_inappropriate": inappropriate / align_n if align_n else 0.0,
        "p_inappropriate": total["p_inappropriate"] / inappropriate if inappropriate else 0.0,
        "weight_inappropriate": total["weight_inappropriate"] / inappropriate if inappropriate else 0.0,
        "p_others": total["p_others"] / (align_n - inappropriate) if align_n > inappropriate else 0.0,
        "grad_norm": math.sqrt(total["gradient_square"]) if total["gradient_square"] >= 0 else math.nan,
        **_rewards(total),
        "seconds": seconds,
        "tokens_per_s": total["tokens"] / seconds,
        **_rates(total["flops"], seconds, ranks),
        **memory_stats(ranks.device),
    }


def _rewards(total: dict[str, float]) -> dict[str, float]:
    if not total["pairs"]:
        return {}
    return {name: total[name] / total["pairs"] for name in ("reward_margin", "reward_accuracy")}


def _rates(flops: float, seconds: float, ranks: Ranks) -> dict[str, float]:
    rates = {"tflops_per_rank": flops / seconds / ranks.world_size / 1e12} if flops else {}
    if flops and ranks.device.type == "cuda":
        peak = peak_flops(torch.cuda.get_device_name(ranks.device))
        utilisation = mfu(flops, seconds, world_size=ranks.world_size, peak=peak)
        rates |= {} if utilisation is None else {"mfu": utilisation}
    return rates

