"""The objective against values recorded from the loss that the paper's authors released."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cut_dist.kernels.cut_loss import cut_token_loss, cut_token_loss_reference
from cut_dist.kernels.fused_linear_cut import fused_linear_cut

GOLDEN = Path(__file__).with_name("golden") / "released_loss.json"
NAMES = ("seed1", "seed2", "seed3")  # an Align-N example, an Align-P example, two Align-N examples


def _case(name: str) -> dict:
    return next(case for case in json.loads(GOLDEN.read_text()) if case["name"] == name)


def _response_rows(logits: torch.Tensor, labels: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (R, V) that predict response tokens, those at t-1 the token at t, and those tokens."""
    targets = torch.tensor(labels)[:, 1:]
    response = targets != -100
    return logits[:, :-1][response], targets[response]


def _fused(logits, logits_authentic, logits_fake, labels, *, is_negative, **objective):
    """The fused path, made to see the same logits: its hidden states are they, its weight the identity."""
    return fused_linear_cut(
        logits, logits_authentic, logits_fake, torch.eye(logits.shape[1]), labels, chunk_rows=3, **objective
    )


def _released_total(function, case: dict, judged: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """The released objective in our terms: no fake context, token mean, half where there is an Align-N."""
    objective = {"lam": case["lam"], "alpha": case["alpha"], "gamma": case["gamma"]}
    rows_judged, labels = _response_rows(judged, case["labels_judged"])
    if any(case["is_negative"]):
        assert all(case["is_negative"])
        rows, labels_plain = _response_rows(plain, case["labels_plain"])
        assert torch.equal(labels, labels_plain)
        authentic, factor = rows_judged, 0.5
    else:  # an Align-P example has its only context in the judged slot
        rows, authentic, factor = rows_judged, None, 1.0
    is_negative = torch.full(labels.shape, authentic is not None)
    weight = torch.full(labels.shape, factor / len(labels))
    out = function(rows, authentic, None, labels, is_negative=is_negative, token_weight=weight, **objective)
    assert bool(out.inappropriate.any()) == (authentic is not None)
    return out.loss


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", [cut_token_loss_reference, cut_token_loss, _fused])
def test_released_loss_is_reproduced(function, name):
    case = _case(name)
    judged, plain = (torch.tensor(case[key]).requires_grad_() for key in ("logits_judged", "logits_plain"))
    total = _released_total(function, case, judged, plain)
    total.backward()
    assert total.item() == pytest.approx(case["total"], abs=1e-5, rel=1e-5)
    for logits, key in ((judged, "grad_judged"), (plain, "grad_plain")):
        expected = torch.tensor(case[key])
        actual = torch.zeros_like(expected) if logits.grad is None else logits.grad
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
