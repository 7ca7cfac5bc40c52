"""Gradients times the upstream factor by a kernel: interpreted on the CPU, natively where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from cut_cases import OBJECTIVE, TRITON_DEVICE, on_device, random_rows

from cut_dist.kernels import scale_triton
from cut_dist.kernels.cut_loss import cut_token_loss
from cut_dist.kernels.scale_triton import scale_

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, under the interpreter, of NaN


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (3, 1365), (4096,), (5, 4097)])
@pytest.mark.parametrize("factor", [0.0, 1.0, -0.3, 65536.0, float("nan")])
def test_as_mul_in_float32(monkeypatch, dtype, shape, factor):
    monkeypatch.setattr(scale_triton, "_PROGRAMS", 2)  # each has several tiles
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).to(TRITON_DEVICE)
    expected, version = (x.float() * factor).to(dtype), x._version
    assert scale_(x, torch.tensor(factor, device=TRITON_DEVICE)) is x
    assert x._version > version  # what autograd looks at before a second backward
    torch.testing.assert_close(x, expected, rtol=0, atol=0, equal_nan=True)


def test_a_factor_of_one_leaves_every_bit():
    bits = torch.tensor([0x7FC12345, 0x7F800000, 1, 0], dtype=torch.int32, device=TRITON_DEVICE)  # NaN with a payload
    scale_(x := bits.view(torch.float32).clone(), torch.ones((), device=TRITON_DEVICE))
    assert torch.equal(x.view(torch.int32), bits)


def test_a_second_backward_of_what_was_scaled_in_place_is_refused():
    """On a GPU by this kernel, whose writes autograd does not see; on the CPU by PyTorch."""
    data = on_device("triton", random_rows(8, 20, dtype=torch.float32))
    owned = data["logits"].clone().requires_grad_() * 1
    out = cut_token_loss(**{**data, "logits": owned}, **OBJECTIVE, inplace=True)
    (2.0 * out.loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (2.0 * out.loss).backward()


def test_nothing_to_scale():
    assert scale_(torch.empty(0, 5, device=TRITON_DEVICE), torch.ones((), device=TRITON_DEVICE)).numel() == 0
