"""The Triton kernel: interpreted on the CPU, the same tests natively where there is a GPU."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from cut_cases import (
    ANY_OBJECTIVE,
    FIELDS,
    OBJECTIVE,
    TRITON_DEVICE,
    check_properties,
    double,
    evaluate,
    on_device,
    random_rows,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cut_dist.kernels import backends, cut_loss_triton
from cut_dist.kernels.arguments import CutRows, Objective, Rows
from cut_dist.kernels.backends import select_backend
from cut_dist.kernels.cut_loss import cut_token_loss, cut_token_loss_reference
from cut_dist.kernels.fused_linear_cut import fused_linear_cut

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, under the interpreter, of infinities
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def kernel_rows(data: dict, *buffers: Tensor | None) -> CutRows:
    """The kernel's own results; `buffers` get the gradients."""
    rows = Rows(**on_device("triton", data))
    return select_backend("triton", rows.logits)(rows, Objective(**OBJECTIVE), *buffers)


def poisoned(data: dict) -> list[Tensor]:
    """Buffers for the gradients, full of NaN."""
    return [torch.full_like(data[name], math.nan, device=TRITON_DEVICE) for name in ("logits", "logits_authentic")]


def assert_right(actual: CutRows, gradients: list[Tensor], data: dict) -> None:
    """Against the float64 reference; gradients to the rounding of their type."""
    expected, *wanted = evaluate(cut_token_loss_reference, **double(data), **OBJECTIVE)
    for field, values in zip(FIELDS, actual, strict=True):
        reference = getattr(expected, field)
        torch.testing.assert_close(values.cpu().to(reference.dtype), reference, rtol=1e-5, atol=2e-6)
    for gradient, reference in zip(gradients, wanted, strict=True):
        tolerance = TOLERANCE[gradient.dtype]
        smallest = 1e-7 if gradient.dtype == torch.float16 else 1e-9  # float16 has no finer numbers
        torch.testing.assert_close(gradient.cpu().double(), reference, rtol=tolerance, atol=smallest + tolerance * 1e-2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(8, 1), (8, 2), (8, 3), (21, 127), (8, 4096), (4, 49153), (3, 151936)])
def test_against_the_reference(shape, dtype):
    """Buffers are poisoned, and rows without a use hold NaN: the kernel reads none of those and writes all of these."""
    clean = random_rows(*shape, dtype=dtype, seed=5)
    data = {name: tensor.clone() for name, tensor in clean.items()}
    ignored = data["labels"] == -100
    unread = ignored | ~data["is_negative"]
    data["logits"][ignored] = math.nan
    data["token_weight"][ignored] = math.nan
    data["logits_authentic"][unread] = math.nan
    data["logits_fake"][unread] = math.nan
    gradients = poisoned(data)
    rows = kernel_rows(data, *gradients)
    assert_right(rows, gradients, clean)
    for gradient, unused in zip(gradients, (ignored, unread), strict=True):
        assert gradient.cpu()[unused].eq(0).all()
    assert all(field.cpu()[ignored].eq(0).all() for field in rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place_is_the_same_to_the_last_bit(dtype):
    data = on_device("triton", random_rows(9, 5003, dtype=dtype))
    gradients = poisoned(data)
    rows = kernel_rows(data, *gradients)
    owned = data | {name: data[name].clone() for name in ("logits", "logits_authentic")}
    again = kernel_rows(owned, owned["logits"], owned["logits_authentic"])
    assert all(torch.equal(a, b) for a, b in zip(rows, again, strict=True))
    assert torch.equal(owned["logits"], gradients[0]) and torch.equal(owned["logits_authentic"], gradients[1])


@pytest.mark.parametrize("which", ["fake", "instruction", "no authentic", "none negative"])
@pytest.mark.parametrize("due", [(True, True), (True, False), (False, True), (False, False)])
def test_contexts_and_gradients_that_are_there(which, due):
    data = random_rows(10, 300, dtype=torch.float32)
    if which != "fake":
        data["logits_fake"] = None
    if which == "no authentic":
        data |= {"logits_authentic": None, "is_negative": None}
        due = (due[0], False)
    if which == "none negative":
        data["is_negative"][:] = False
    expected, *wanted = evaluate(cut_token_loss_reference, **double(data), **OBJECTIVE)
    buffers = [torch.full((10, 300), math.nan, device=TRITON_DEVICE) if needed else None for needed in due]
    rows = kernel_rows(data, *buffers)
    for field, values in zip(FIELDS, rows, strict=True):
        torch.testing.assert_close(values.cpu(), getattr(expected, field).to(values.dtype), rtol=1e-5, atol=2e-6)
    for buffer, gradient in zip(buffers, wanted, strict=True):
        if buffer is not None:
            torch.testing.assert_close(buffer.cpu().double(), gradient, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize(("width", "first"), [(1000, 0), (512, 7), (512, 16)])
def test_rows_that_lie_apart(width, first):
    """Rows of views: nothing beside them is written, whatever their alignment."""
    data = random_rows(7, 400, dtype=torch.bfloat16)
    expected = poisoned(data)
    kernel_rows(data, *expected)
    wide = {name: torch.full((7, width), 3.0, dtype=torch.bfloat16, device=TRITON_DEVICE) for name in list(data)[:3]}
    views = {name: x[:, first : first + 400] for name, x in wide.items()}
    for name, view in views.items():
        view.copy_(data[name])
    kernel_rows(data | views, views["logits"], views["logits_authentic"])
    for name, gradient in zip(("logits", "logits_authentic"), expected, strict=True):
        assert torch.equal(views[name], gradient)
        assert wide[name][:, :first].eq(3).all() and wide[name][:, first + 400 :].eq(3).all()


def test_columns_that_lie_apart():
    """They are copied to be read; as the place of a gradient they are refused."""
    data = on_device("triton", random_rows(6, 50, dtype=torch.float32))
    gradients = poisoned(data)
    rows = kernel_rows(data, *gradients)
    apart = data | {name: data[name].T.contiguous().T for name in ("logits", "logits_authentic", "logits_fake")}
    again = poisoned(data)
    assert all(torch.equal(a, b) for a, b in zip(rows, kernel_rows(apart, *again), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))
    with pytest.raises(ValueError, match="adjacent in memory; use inplace=False"):
        kernel_rows(apart, apart["logits"])


def test_labels_at_the_borders_of_tiles():
    """The label's tile takes its turn apart from the others, wherever it lies."""
    vocabulary = 20000
    launch = cut_loss_triton._launch([vocabulary], torch.bfloat16)
    tile = launch["LANES"] * launch["VEC"]
    assert 2 * tile < vocabulary < 3 * tile
    labels = torch.tensor([0, tile - 1, tile, 2 * tile - 1, 2 * tile, vocabulary - 1])
    data = random_rows(len(labels), vocabulary, dtype=torch.bfloat16)
    data |= {"labels": labels, "is_negative": torch.ones(len(labels), dtype=torch.bool)}
    gradients = poisoned(data)
    assert_right(kernel_rows(data, *gradients), gradients, data)


def test_what_belongs_to_a_row_may_lie_apart():
    """Labels out of a wider tensor, a weight that is the same number for all rows."""
    data = on_device("triton", random_rows(6, 50, dtype=torch.float32))
    data |= {"token_weight": torch.full((6,), 0.5, device=TRITON_DEVICE)}
    gradients = poisoned(data)
    rows = kernel_rows(data, *gradients)
    apart = {name: torch.stack([data[name]] * 2, 1)[:, 0] for name in ("labels", "is_negative")}
    apart |= {"token_weight": torch.tensor(0.5, device=TRITON_DEVICE).expand(6)}
    again = poisoned(data)
    assert all(torch.equal(a, b) for a, b in zip(rows, kernel_rows(data | apart, *again), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))


def test_offsets_beyond_32_bits():
    """Three rows 2³⁰ elements apart, of which no more memory is touched than those rows."""
    stride = 2**30
    far = torch.empty(2 * stride + 64, dtype=torch.bfloat16, device=TRITON_DEVICE).as_strided((3, 64), (stride, 1))
    data = random_rows(3, 64, dtype=torch.bfloat16)
    data |= {"logits_authentic": None, "logits_fake": None, "is_negative": None}
    far.copy_(data["logits"])
    near = torch.full((3, 64), math.nan, dtype=torch.bfloat16, device=TRITON_DEVICE)
    expected = kernel_rows(data, near)
    rows = kernel_rows(data | {"logits": far}, far)
    assert torch.equal(far, near) and all(torch.equal(a, b) for a, b in zip(rows, expected, strict=True))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(0, 4), vocabulary=st.integers(1, 9000), **ANY_OBJECTIVE)
def test_properties_of_random_rows(seed, rows, vocabulary, scale, **objective):
    data = random_rows(rows, vocabulary, seed=seed, scale=scale, dtype=torch.float32)
    check_properties("triton", data, objective, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_head(dtype):
    generator = torch.Generator().manual_seed(0)
    hidden, authentic, fake, weight = (
        (torch.randn(n, 16, generator=generator) / 2).to(TRITON_DEVICE, dtype) for n in (20, 12, 12, 200)
    )
    labels = torch.randint(200, (20,), generator=generator).to(TRITON_DEVICE)
    results = []
    for backend in ("torch", "triton"):
        leaves = [x.clone().requires_grad_() for x in (hidden, authentic, weight)]
        out = fused_linear_cut(*leaves[:2], fake, leaves[2], labels, **OBJECTIVE, chunk_rows=5, backend=backend)
        out.loss.backward()
        results.append((out.loss.detach(), *(leaf.grad for leaf in leaves)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-5)


# ---- choice of the backend ----


def test_auto_takes_triton_on_cuda_and_torch_elsewhere():
    for is_cuda, dtype, expected in (
        (True, torch.bfloat16, "triton"),
        (True, torch.float64, "torch"),
        (False, torch.bfloat16, "torch"),
    ):
        chosen = select_backend("auto", SimpleNamespace(is_cuda=is_cuda, dtype=dtype))
        assert chosen.__module__ == backends.BACKENDS[expected]


def test_where_triton_cannot_run(monkeypatch):
    with pytest.raises(TypeError, match="float64"):
        select_backend("triton", torch.zeros(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="the tensors are on meta"):
        select_backend("triton", torch.zeros(1, device="meta"))
    monkeypatch.setattr(backends, "_INTERPRETED", False)
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1"):
        select_backend("triton", torch.zeros(1))
    monkeypatch.setattr(backends, "HAS_TRITON", False)
    with pytest.raises(ModuleNotFoundError, match="backend='torch'"):
        select_backend("triton", torch.zeros(1))
    assert select_backend("auto", SimpleNamespace(is_cuda=True, dtype=torch.float32)).__module__.endswith("_torch")


@pytest.mark.gpu
def test_the_host_never_waits():
    data = on_device("triton", random_rows(64, 32000, dtype=torch.bfloat16))
    leaf = data["logits"].clone().requires_grad_()
    for mode in ("default", "error"):  # the first call compiles
        torch.cuda.set_sync_debug_mode(mode)
        try:
            (2 * cut_token_loss(**(data | {"logits": leaf}), **OBJECTIVE).loss).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert leaf.grad.isfinite().all() and leaf.grad.any()


@pytest.mark.parametrize("label", [-1, 20, 2**31 - 1])
def test_a_label_out_of_range_makes_its_row_nan_and_reads_nothing(label):
    """On a GPU `cut_token_loss` can't look at labels: only the kernel stands between them and other rows' memory."""
    data = on_device("triton", random_rows(4, 20, dtype=torch.float32))
    data["labels"] = torch.tensor([3, label, 5, -100], device=data["labels"].device)
    cut_rows = select_backend("triton", data["logits"])
    result = cut_rows(Rows(*data.values()), Objective(*OBJECTIVE.values()))
    assert result.loss_instruction.isnan().tolist() == [False, True, False, False]
