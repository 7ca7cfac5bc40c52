"""Rows for the tests of the CUT loss, and how results are had and compared: on every backend, and on a GPU too."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from cut_dist.kernels.cut_loss import CutTokenLoss, cut_token_loss, cut_token_loss_reference

INF = math.inf
OBJECTIVE = {"lam": 1.1, "alpha": 0.5, "gamma": 0.5}
FIELDS = ("loss_instruction", "loss_authentic", "inappropriate", "logp", "logp_authentic", "logp_fake")
# The Triton kernel runs on the GPU if there is one, else interpreted (conftest.py asks for that).
TRITON_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"



def round_like_a_gpu() -> None:
    """Mends Triton's interpreter, which cuts a float32 off to make a bfloat16; GPUs round it (cvt.rn, as
    test_triton_compile.py sees)."""
    from triton.language import bfloat16, float32
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast_impl = InterpreterBuilder.cast_impl

    def cast(self, source, dtype):
        if (source.dtype.scalar, dtype.scalar) != (float32, bfloat16):
            return cast_impl(self, source, dtype)
        rounded = torch.from_numpy(source.data).bfloat16().view(torch.uint16)
        return TensorHandle(rounded.numpy(), bfloat16)

    InterpreterBuilder.cast_impl = cast


if importlib.util.find_spec("triton"):
    round_like_a_gpu()

ANY_OBJECTIVE = {
    "scale": st.sampled_from([0.1, 3.0, 40.0]),
    "gamma": st.floats(0, 3),
    "alpha": st.floats(0, 2),
    "lam": st.floats(0.5, 2),
}
each_backend = pytest.mark.parametrize("backend", ["torch", "triton"])


def random_rows(
    rows: int, vocabulary: int, *, dtype: torch.dtype = torch.float64, seed: int = 0, scale: float = 3.0
) -> dict:
    """Logits of three contexts, related as a model's are, with ignored, Align-P and weighted rows."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64) * scale
    contexts = [
        (shared + torch.randn(shared.shape, generator=generator, dtype=torch.float64)).to(dtype)
        for _ in range(3)
    ]
    labels = torch.randint(vocabulary, (rows,), generator=generator)
    labels[::5] = shared[::5].argmax(1)  # responses are mostly likely tokens
    labels[3::7] = -100
    return {
        "logits": contexts[0],
        "logits_authentic": contexts[1],
        "logits_fake": contexts[2],
        "labels": labels,
        "is_negative": torch.arange(rows) % 3 != 1,
        "token_weight": torch.rand(rows, generator=generator) + 0.1,
    }


def double(data: dict) -> dict:
    return {name: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for name, x in data.items()}


def one_row(*logits: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([logits], dtype=dtype)


def on_device(backend: str, arguments: dict) -> dict:
    """The arguments where that backend is tested."""
    device = TRITON_DEVICE if backend == "triton" else "cpu"
    return {name: x.to(device) if isinstance(x, Tensor) else x for name, x in arguments.items()}


def evaluate(function, *, upstream: float = 1.0, **kwargs) -> tuple[CutTokenLoss, Tensor | None, Tensor | None]:
    """Calls it on fresh leaves and returns the result, detached, with the gradients for both contexts, on the CPU."""
    kwargs = on_device(kwargs.get("backend", "torch"), kwargs)
    leaves = {
        name: None if kwargs[name] is None else kwargs[name].clone().requires_grad_()
        for name in ("logits", "logits_authentic")
    }
    out = function(**{**kwargs, **leaves})
    (out.loss * upstream).backward()
    out = CutTokenLoss(*(field.detach().cpu() for field in out))
    return out, *(None if leaf is None or leaf.grad is None else leaf.grad.cpu() for leaf in leaves.values())


def assert_same_fields(actual: CutTokenLoss, expected: CutTokenLoss, *, rtol: float, atol: float) -> None:
    for field in ("loss", *FIELDS):
        a, e = (getattr(result, field).detach() for result in (actual, expected))
        if field != "inappropriate":
            a, e = a.double(), e.double()
        torch.testing.assert_close(a, e, rtol=rtol, atol=atol, msg=lambda text, field=field: f"{field}: {text}")


def assert_same(actual, expected, *, rtol: float, atol: float) -> None:
    """Compares two results of `evaluate`."""
    assert_same_fields(actual[0], expected[0], rtol=rtol, atol=atol)
    for a, e in zip(actual[1:], expected[1:], strict=True):
        assert (a is None) == (e is None)
        if a is not None:
            torch.testing.assert_close(a.double(), e.double(), rtol=rtol, atol=atol)


def check_properties(backend: str, data: dict, objective: dict, *, rtol: float, atol: float) -> None:
    """What holds for any rows: the reference's results, gradients that sum to 0, rows that know nothing of others."""
    rows, vocabulary = data["logits"].shape
    if vocabulary == 1:  # or the loss is +inf, of which the reference's gradient is NaN
        objective = objective | {"lam": max(objective["lam"], 1.0)}
    expected = evaluate(cut_token_loss_reference, **double(data), **objective)
    ratio = expected[0].logp_authentic - expected[0].logp_fake
    if (ratio - math.log(objective["lam"])).abs().lt(100 * atol).any():
        return  # decided by rounding
    out, *gradients = actual = evaluate(cut_token_loss, **data, **objective, backend=backend)
    assert_same(actual, expected, rtol=rtol, atol=atol)
    # The loss of a row does not change when all its logits rise by the same.
    for gradient in gradients:
        torch.testing.assert_close(gradient.double().sum(1), torch.zeros(rows).double(), rtol=0, atol=atol)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(rows))
    shuffled = on_device(backend, {name: tensor[order] for name, tensor in data.items()})
    again = cut_token_loss(**shuffled, **objective, backend=backend)
    for field in FIELDS:
        assert torch.equal(getattr(again, field).cpu(), getattr(out, field)[order]), field
