"""Hidden states for the tests of the fused head, and the reference on whole logits."""

from __future__ import annotations

import torch
from cut_cases import OBJECTIVE, assert_same_fields
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cut_dist.kernels.cut_loss import cut_token_loss_reference

DIFFERENTIABLE = ("hidden", "hidden_authentic", "weight")


def random_inputs(
    rows: int, rows_negative: int | None, vocabulary: int, width: int, *, dtype=torch.float64, seed: int = 0
) -> dict:
    """Hidden states of three contexts of one model: related, with ignored and weighted rows."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    noise = [0.3 * torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(3)]
    hidden, authentic, fake = ((shared + part).to(dtype) for part in noise)
    labels = torch.randint(vocabulary, (rows,), generator=generator)
    labels[2::6] = -100
    return {
        "hidden": hidden,
        "hidden_authentic": None if rows_negative is None else authentic[:rows_negative].clone(),
        "hidden_fake": None if rows_negative is None else fake[:rows_negative].clone(),
        "weight": torch.randn(vocabulary, width, generator=generator, dtype=torch.float64).to(dtype),
        "labels": labels,
        "token_weight": torch.rand(rows, generator=generator) + 0.1,
    }


def from_whole_logits(hidden, hidden_authentic, hidden_fake, weight, labels, *, token_weight, **objective):
    """The reference under autograd, with dummy rows where Align-P rows have no other context."""
    logits = hidden @ weight.T
    rows_negative = 0 if hidden_authentic is None else len(hidden_authentic)
    dummy = hidden.new_zeros(len(hidden) - rows_negative, hidden.shape[1])
    authentic, fake = (
        None if x is None else torch.cat([x, dummy]) @ weight.T for x in (hidden_authentic, hidden_fake)
    )
    is_negative = torch.arange(len(hidden)) < rows_negative
    return cut_token_loss_reference(
        logits, authentic, fake, labels, is_negative=is_negative, token_weight=token_weight, **objective
    )


def evaluate(function, inputs: dict, *, upstream: float = 1.0, **kwargs):
    """Calls it on fresh leaves and returns the result with the gradients for them."""
    leaves = {name: None if inputs[name] is None else inputs[name].clone() for name in DIFFERENTIABLE}
    for leaf in leaves.values():
        if leaf is not None:
            leaf.requires_grad_()
    out = function(**{**inputs, **leaves}, **{**OBJECTIVE, **kwargs})
    (out.loss * upstream).backward()
    return out, {name: leaf.grad for name, leaf in leaves.items() if leaf is not None}


def assert_same(actual, expected, *, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    assert_same_fields(actual[0], expected[0], rtol=rtol, atol=atol)
    assert actual[1].keys() == expected[1].keys()
    for name, gradient in actual[1].items():
        if gradient is None:
            assert expected[1][name] is None
            continue
        wanted = torch.zeros_like(gradient) if expected[1][name] is None else expected[1][name]
        torch.testing.assert_close(
            gradient, wanted, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


class Largest(TorchDispatchMode):
    """Notes how many elements the largest matrix has that any operation puts out, by its width."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and tensor.dim() == 2:
                self.elements[tensor.shape[1]] = max(self.elements.get(tensor.shape[1], 0), tensor.numel())
        return result
