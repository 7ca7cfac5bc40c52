"""The CUT loss is no less precise than the formula in PyTorch, on every backend and in every type of logits."""

from __future__ import annotations

import math

import pytest
import torch
from cut_cases import OBJECTIVE, each_backend, evaluate, random_rows
from torch import Tensor

from cut_dist.kernels.cut_loss import cut_token_loss, cut_token_loss_reference


def eager_loss(logits, logits_authentic, logits_fake, labels, *, lam, alpha, gamma) -> Tensor:
    """The formula as one would write it, in the dtype of the logits."""
    column = labels.unsqueeze(1)
    logp, logp_authentic, logp_fake = (
        z.log_softmax(1).gather(1, column).squeeze(1) for z in (logits, logits_authentic, logits_fake)
    )
    inappropriate = logp_authentic.detach() - logp_fake > math.log(lam)
    w = alpha * logp_authentic.detach().exp() ** gamma
    unlikelihood = -w * torch.log1p(-logp.exp())
    return (torch.where(inappropriate, unlikelihood, -logp) - logp_authentic).sum()


SHAPES = [(8, 2), (8, 3), (8, 127), (32, 1000), (4, 32000), (3, 49152), (2, 128256), (2, 151936)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@each_backend
def test_no_less_precise_than_eager_pytorch(backend, shape, dtype):
    """Against float64: the loss than eager float32, gradients than eager PyTorch in the dtype of the logits."""
    data = random_rows(*shape, dtype=dtype, seed=3)
    rows = {name: data[name] for name in ("logits", "logits_authentic", "logits_fake")}
    labels = data["labels"].clamp(min=0)
    exact = {name: tensor.double() for name, tensor in rows.items()}
    truth, *gradients = evaluate(cut_token_loss_reference, **exact, labels=labels, **OBJECTIVE)
    ratio = truth.logp_authentic - truth.logp_fake
    assert (ratio - math.log(OBJECTIVE["lam"])).abs().min() > 1e-5  # no token whose side depends on rounding

    out, *ours = evaluate(cut_token_loss, **rows, labels=labels, **OBJECTIVE, backend=backend)
    single = eager_loss(*(tensor.float() for tensor in rows.values()), labels, **OBJECTIVE)
    assert (out.loss - truth.loss).abs() <= (single - truth.loss).abs() + 3e-7 * truth.loss.abs()
    leaves = [rows[name].clone().requires_grad_() for name in ("logits", "logits_authentic")]
    eager_loss(*leaves, rows["logits_fake"], labels, **OBJECTIVE).backward()
    for mine, theirs, exact_gradient in zip(ours, (leaf.grad for leaf in leaves), gradients, strict=True):
        assert mine.dtype == dtype
        error, eager_error = ((g.double() - exact_gradient).abs() for g in (mine, theirs))
        eager_error.nan_to_num_(nan=math.inf)  # eager bfloat16 where it rounds p to 1
        assert error.max() <= 1.1 * eager_error.max() + 1e-7
        assert error.mean() <= 1.01 * eager_error.mean() + 1e-7 * exact_gradient.abs().mean()
