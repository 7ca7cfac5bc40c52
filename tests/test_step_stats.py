from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cut_dist.data.examples import Example
from cut_dist.data.packing import pack_examples
from cut_dist.engine.launch import Ranks
from cut_dist.kernels.cut_loss import CutTokenLoss
from cut_dist.step_stats import SUMS, micro_batch_sums, model_flops, step_metrics
from cut_dist.throughput import ModelShape

SHAPE = ModelShape(layers=1, hidden=4, heads=1, kv_heads=1, head_dim=4, intermediate=8, vocab=10)
RANKS = Ranks(0, 2, torch.device("cpu"))


def ids(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int32)


def batch():
    """One Align-N example of two response tokens and one Align-P example of one."""
    negative = Example("n", True, {"instruction": ids(3), "authentic": ids(5), "fake": ids(4)}, ids(2))
    return pack_examples([negative, Example("p", False, {"instruction": ids(3)}, ids(1))], [0.25, 0.5], "fake")


def output() -> CutTokenLoss:
    """The first token of the Align-N response is inappropriate: p = 0.5, p⁻ = 0.25."""
    return CutTokenLoss(
        loss=torch.tensor(0.25 * (3 + 1) + 0.25 * (1 + 2) + 0.5 * 4),
        loss_instruction=torch.tensor([3.0, 1.0, 4.0]),
        loss_authentic=torch.tensor([1.0, 2.0, 0.0]),
        inappropriate=torch.tensor([True, False, False]),
        logp=torch.tensor([0.5, 0.8, 0.1]).log(),
        logp_authentic=torch.tensor([0.25, 0.9, 1.0]).log(),
        logp_fake=torch.tensor([0.1, 0.9, 1.0]).log(),
    )


def sums(packed=None) -> dict[str, float]:
    vector = micro_batch_sums(packed or batch(), output(), alpha=2.0, gamma=0.5, shape=SHAPE)
    return dict(zip(SUMS, vector.tolist()))


def test_sums_by_hand():
    got = sums()
    assert got["loss"] == pytest.approx(got["loss/instruction"] + got["loss/authentic"] + got["loss/align_p"])
    assert (got["loss/instruction"], got["loss/authentic"], got["loss/align_p"]) == pytest.approx((1.0, 0.75, 2.0))
    assert (got["examples"], got["response_tokens"], got["align_n_tokens"], got["tokens"]) == (2, 3, 2, 4 + 3 + 6 + 5)
    assert got["inappropriate_tokens"] == 1
    assert got["p_inappropriate"] == pytest.approx(0.5)
    assert got["p_others"] == pytest.approx(0.8)
    assert got["weight_inappropriate"] == pytest.approx(2 * 0.25**0.5)  # α·(p⁻)^γ
    assert got["gradient_square"] == got["not_finite"] == got["stop"] == 0


def test_the_fake_context_counts_a_forward_the_others_a_backward_too():
    with_fake, without = batch(), replace(batch(), num_no_grad_segments=0, no_grad=())
    assert 0 < model_flops(with_fake, SHAPE) < model_flops(without, SHAPE)
    assert model_flops(batch(), None) == 0


def test_a_filler_counts_for_nothing():
    filler = replace(batch(), examples=(), row_counts=(), token_weight=torch.zeros(3))
    got = sums(filler)
    assert all(got[name] == 0 for name in SUMS if name != "loss")


def test_metrics_are_means_over_tokens_and_survive_a_batch_without_align_n():
    vector = [0.0] * len(SUMS)
    for name, value in {"loss": 3.0, "align_n_tokens": 10, "inappropriate_tokens": 4, "p_inappropriate": 1.0,
                        "p_others": 3.0, "weight_inappropriate": 2.0, "tokens": 50, "flops": 2e12,
                        "gradient_square": 9.0}.items():  # fmt: skip
        vector[SUMS.index(name)] = value
    metrics = step_metrics(vector, seconds=2.0, ranks=RANKS)
    assert metrics["share_inappropriate"] == 0.4 and metrics["p_inappropriate"] == 0.25
    assert metrics["p_others"] == 0.5 and metrics["weight_inappropriate"] == 0.5
    assert metrics["grad_norm"] == 3 and metrics["tokens_per_s"] == 25 and metrics["tflops_per_rank"] == 0.5
    assert "mfu" not in metrics, "the peak of a CPU is not known"
    assert step_metrics([0.0] * len(SUMS), 1.0, RANKS)["p_inappropriate"] == 0
