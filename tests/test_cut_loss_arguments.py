"""Arguments of the CUT loss: backends by name, and a clear error for each mistake."""

from __future__ import annotations

import math

import pytest
import torch
from cut_cases import OBJECTIVE

from cut_dist.kernels.backends import BACKENDS, select_backend
from cut_dist.kernels.cut_loss import cut_token_loss, cut_token_loss_reference


def arguments() -> dict:
    """Right arguments for 8 rows of a vocabulary of 20."""
    generator = torch.Generator().manual_seed(0)
    contexts = ("logits", "logits_authentic", "logits_fake")
    return {name: torch.randn(8, 20, generator=generator, dtype=torch.float64) for name in contexts} | {
        "labels": torch.arange(8),
        "is_negative": torch.arange(8) < 5,
        "token_weight": torch.ones(8),
    }


def test_backends():
    data = arguments()
    assert select_backend("auto", data["logits"]).__module__ == BACKENDS["torch"]
    by_name = cut_token_loss(**data, **OBJECTIVE, backend="torch")
    assert torch.equal(by_name.loss, cut_token_loss(**data, **OBJECTIVE).loss)
    with pytest.raises(ValueError, match="'cuda'.*'auto' or 'torch'"):
        cut_token_loss(**data, **OBJECTIVE, backend="cuda")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lam": -0.1}, "lam must be a finite number of at least 0"),
        ({"lam_instruction": -1.0}, "lam_instruction must be a finite number of at least 0"),
        ({"lam_instruction": math.inf}, "lam_instruction"),
        ({"floor": -0.1}, "floor must be a finite number of at least 0"),
        ({"floor": 1.1}, "floor must be a probability, at most 1"),
        ({"floor": math.nan}, "floor"),
        ({"lam": math.nan}, "lam"),
        ({"alpha": -0.1}, "alpha must be a finite number of at least 0"),
        ({"gamma": -1.0}, "gamma"),
        ({"gamma": math.inf}, "gamma"),
        ({"logits": torch.zeros(8)}, "logits must have two dimensions"),
        ({"logits": torch.zeros(8, 20, dtype=torch.int64)}, "logits must be floating point"),
        ({"logits_authentic": torch.zeros(8, 19).double()}, r"logits_authentic must have shape \(8, 20\)"),
        ({"logits_fake": torch.zeros(8, 20)}, "logits_fake is torch.float32 but logits is torch.float64"),
        ({"logits_authentic": None}, "logits_fake is given without logits_authentic"),
        ({"logits_authentic": None, "logits_fake": None}, "is_negative marks Align-N rows"),
        ({"labels": torch.zeros(8, dtype=torch.int32)}, "labels must be int64"),
        ({"labels": torch.zeros(7, dtype=torch.int64)}, r"labels must have shape \(8,\)"),
        ({"labels": torch.full((8,), 20)}, r"labels\[0\] is 20.*vocabulary size 20"),
        ({"labels": torch.full((8,), -1)}, r"labels\[0\] is -1"),
        ({"is_negative": torch.ones(8)}, "is_negative must be bool"),
        ({"is_negative": torch.ones(8, 1, dtype=torch.bool)}, "is_negative must have shape"),
        ({"token_weight": torch.ones(8, dtype=torch.int64)}, "token_weight must be floating point"),
        ({"token_weight": torch.ones(1)}, "token_weight must have shape"),
        ({"token_weight": torch.ones(8, device="meta")}, "token_weight is on meta"),
    ],
)
@pytest.mark.parametrize("function", [cut_token_loss, cut_token_loss_reference])
def test_wrong_arguments_are_named(function, change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        function(**{**arguments(), **OBJECTIVE, **change})
