"""The CUT loss from hidden states against the reference on whole logits."""

from __future__ import annotations

import math

import pytest
import torch
from cut_cases import OBJECTIVE
from head_cases import DIFFERENTIABLE, Largest, assert_same, evaluate, from_whole_logits, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from cut_dist.kernels import fused_linear_cut as module
from cut_dist.kernels.backends import select_backend
from cut_dist.kernels.cut_loss import cut_token_loss
from cut_dist.kernels.fused_linear_cut import fused_linear_cut


@pytest.mark.parametrize("chunk_rows", [None, 1, 4, 1000])
@pytest.mark.parametrize(
    ("rows", "rows_negative"),
    [(23, 23), (23, 9), (23, 1), (23, 0), (23, None), (1, 1), (1, None), (0, 0), (0, None)],
)
def test_against_the_reference_on_whole_logits(rows, rows_negative, chunk_rows):
    inputs = random_inputs(rows, rows_negative, 41, 7)
    expected = evaluate(from_whole_logits, inputs)
    assert_same(evaluate(fused_linear_cut, inputs, chunk_rows=chunk_rows), expected)
    assert rows < 10 or not rows_negative or rows_negative == 1 or expected[0].inappropriate.any()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_contrast_with_the_instruction_context(gamma):
    inputs = random_inputs(23, 15, 41, 7) | {"hidden_fake": None}
    expected = evaluate(from_whole_logits, inputs, gamma=gamma)
    assert expected[0].inappropriate.any()
    assert_same(evaluate(fused_linear_cut, inputs, gamma=gamma, chunk_rows=4), expected)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 20),
    share=st.floats(0, 1),
    vocabulary=st.integers(2, 60),
    width=st.integers(1, 9),
    chunk_rows=st.integers(1, 25),
    seed=st.integers(0, 10**6),
    gamma=st.floats(0, 3),
    lam=st.floats(0.5, 2),
)
def test_any_layout(rows, share, vocabulary, width, chunk_rows, seed, gamma, lam):
    inputs = random_inputs(rows, round(share * rows), vocabulary, width, seed=seed)
    expected = evaluate(from_whole_logits, inputs, gamma=gamma, lam=lam)
    if (expected[0].logp_authentic - expected[0].logp_fake - math.log(lam)).abs().lt(1e-9).any():
        return  # decided by rounding
    actual = evaluate(fused_linear_cut, inputs, gamma=gamma, lam=lam, chunk_rows=chunk_rows)
    assert_same(actual, expected, rtol=1e-8, atol=1e-9)


def test_single_precision():
    inputs = random_inputs(50, 30, 997, 32, dtype=torch.float32)
    exact = {name: x.double() if x.dtype == torch.float32 else x for name, x in inputs.items()}
    out, gradients = evaluate(fused_linear_cut, inputs, chunk_rows=16)
    truth, truth_gradients = evaluate(from_whole_logits, exact)
    assert out.loss.item() == pytest.approx(truth.loss.item(), rel=1e-5)
    for name, gradient in gradients.items():
        error = (gradient - truth_gradients[name]).norm() / truth_gradients[name].norm()
        assert error < 1e-5, name


def test_half_precision_weights_are_no_worse_than_eager_pytorch():
    inputs = random_inputs(64, 40, 997, 32, dtype=torch.bfloat16)
    inputs["weight"] /= 4
    exact = {name: x.double() if x.dtype == torch.bfloat16 else x for name, x in inputs.items()}
    _, truth = evaluate(from_whole_logits, exact)
    _, eager = evaluate(from_whole_logits, inputs)
    _, ours = evaluate(fused_linear_cut, inputs, chunk_rows=16)
    for name, gradient in ours.items():
        assert gradient.dtype == torch.bfloat16
        error, eager_error = (
            (g.double() - truth[name]).norm() / truth[name].norm() for g in (gradient, eager[name])
        )
        assert error <= 1.1 * eager_error + 1e-4, name


def test_weight_gradient_is_accumulated_in_float32():
    """Five hundred chunks of a row each: added up in bfloat16 they would keep few digits."""
    inputs = random_inputs(512, None, 16, 8, dtype=torch.bfloat16)
    inputs["labels"][:] = 3
    exact = {
        name: x.double() if x is not None and x.dtype == torch.bfloat16 else x for name, x in inputs.items()
    }
    truth = evaluate(from_whole_logits, exact)[1]["weight"]
    many, one = (
        evaluate(fused_linear_cut, inputs, chunk_rows=size)[1]["weight"].double() for size in (1, 512)
    )
    error_many, error_one = ((gradient - truth).norm() / truth.norm() for gradient in (many, one))
    assert error_many < 1.2 * error_one


# ---- chunks ----


@pytest.mark.parametrize("chunk_rows", [1, 5, 7, 100])
@pytest.mark.parametrize(("rows_negative", "rows"), [(0, 23), (9, 23), (23, 23), (5, 5), (0, 0)])
def test_chunk_slices(rows_negative, rows, chunk_rows):
    slices = list(module._chunk_slices(rows_negative, rows, chunk_rows))
    assert [i for piece in slices for i in range(piece.start, piece.stop)] == list(range(rows))
    for piece in slices:
        assert piece.stop - piece.start <= chunk_rows
        assert piece.stop <= rows_negative or piece.start >= rows_negative


def test_rows_start_aligned_whatever_the_vocabulary(monkeypatch):
    """So that the Triton kernel loads 16 bytes at once at V = 32001 too."""
    seen = []

    def spy(backend, tensor):
        compute = select_backend(backend, tensor)

        def noting(rows, objective, grad, grad_authentic):
            for x in (*rows[:3], grad, grad_authentic):
                seen.extend([] if x is None else [x.stride(0), x.shape[1], x.storage_offset()])
            return compute(rows, objective, grad, grad_authentic)

        return noting

    monkeypatch.setattr(module, "select_backend", spy)
    inputs = random_inputs(23, 9, 41, 7)
    actual = evaluate(fused_linear_cut, inputs, chunk_rows=5)
    assert seen and not any(size % 16 for size in seen)
    assert_same(actual, evaluate(from_whole_logits, inputs))


@pytest.fixture
def poisoned_memory():
    """Memory that is allocated and not initialized is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("rows", "rows_negative"), [(23, 9), (23, 23), (23, None), (0, 0)])
def test_no_uninitialized_memory_is_read(rows, rows_negative, dtype):
    assert torch.empty(3).isnan().all()
    inputs = random_inputs(rows, rows_negative, 41, 7, dtype=dtype)
    out, gradients = evaluate(fused_linear_cut, inputs, chunk_rows=4)
    assert out.loss.isfinite()
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
    assert rows > 0 or not gradients["weight"].any()


# ---- autograd ----


def test_upstream_factor():
    inputs = random_inputs(23, 9, 41, 7)
    _, gradients = evaluate(fused_linear_cut, inputs)
    _, scaled = evaluate(fused_linear_cut, inputs, upstream=-0.25)
    for name, gradient in gradients.items():
        torch.testing.assert_close(scaled[name], -0.25 * gradient)


def test_half_precision_gradients_are_rounded_after_the_upstream_factor():
    inputs = random_inputs(23, 9, 41, 7, dtype=torch.bfloat16)
    leaf = inputs["weight"].requires_grad_()
    out = fused_linear_cut(**inputs, **OBJECTIVE)
    (saved,) = out.loss.grad_fn.saved_tensors
    assert saved.dtype == torch.float32
    (out.loss / 3).backward()
    torch.testing.assert_close(leaf.grad, (saved * torch.tensor(1 / 3)).bfloat16(), rtol=0, atol=0)


def test_two_calls_before_one_backward_and_accumulation():
    """One weight, two micro-batches: together, one after the other, and as a single batch."""
    one, two = (random_inputs(11, 6, 41, 7, seed=seed) for seed in (1, 2))
    two["weight"] = one["weight"]
    alone = [evaluate(fused_linear_cut, inputs)[1]["weight"] for inputs in (one, two)]
    weight = one["weight"].clone().requires_grad_()
    losses = [fused_linear_cut(**(inputs | {"weight": weight}), **OBJECTIVE).loss for inputs in (one, two)]
    sum(losses).backward(retain_graph=True)
    torch.testing.assert_close(weight.grad, sum(alone))
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(weight.grad, 2 * sum(alone))


def test_gradients_reach_what_made_the_hidden_states():
    inputs = random_inputs(23, 9, 41, 7)
    gradients = []
    for function in (fused_linear_cut, from_whole_logits):
        layer = torch.eye(7).double().requires_grad_()  # tied to the head as embeddings are
        weight = inputs["weight"].clone().requires_grad_()
        made = {name: inputs[name] @ layer + weight[: len(inputs[name])] for name in DIFFERENTIABLE[:2]}
        function(**(inputs | made | {"weight": weight}), **OBJECTIVE).loss.backward()
        gradients.append((layer.grad, weight.grad))
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    "due", [set(), {"weight"}, {"hidden"}, {"hidden_authentic"}, {"hidden", "hidden_authentic"}]
)
def test_only_the_gradients_that_are_due(due):
    inputs = random_inputs(23, 9, 41, 7)
    out, expected = evaluate(fused_linear_cut, inputs)
    inputs["hidden_fake"].requires_grad_()  # asked for in vain
    for name in due:
        inputs[name] = inputs[name].requires_grad_()
    result = fused_linear_cut(**inputs, **OBJECTIVE, chunk_rows=5)
    torch.testing.assert_close(result.loss, out.loss)
    assert result.loss.requires_grad == bool(due)
    if due:
        result.loss.backward()
    for name in DIFFERENTIABLE:
        if name in due:
            torch.testing.assert_close(inputs[name].grad, expected[name])
        else:
            assert inputs[name].grad is None
    assert inputs["hidden_fake"].grad is None


def test_no_gradient_work_under_no_grad():
    inputs = random_inputs(23, 9, 41, 7, dtype=torch.float32)
    expected, _ = evaluate(fused_linear_cut, inputs)
    inputs["weight"].requires_grad_()
    inputs["hidden"].requires_grad_()
    with torch.no_grad(), Largest() as largest:
        out = fused_linear_cut(**inputs, **OBJECTIVE, chunk_rows=5)
    assert not out.loss.requires_grad
    assert largest.elements[7] < 41 * 7  # nothing of the weight's shape was made
    torch.testing.assert_close(out.loss, expected.loss)


def test_autocast_changes_nothing():
    inputs = random_inputs(23, 9, 41, 7, dtype=torch.float32)
    expected = evaluate(fused_linear_cut, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = evaluate(fused_linear_cut, inputs)
    assert_same(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("due", [True, False])
def test_nothing_waits_for_the_device(due):
    """Tensors on `meta` have no values: whatever looks at one, and would stall a GPU's queue, raises."""
    inputs = {name: tensor.to("meta") for name, tensor in random_inputs(23, 9, 41, 7).items()}
    for name in DIFFERENTIABLE:
        inputs[name].requires_grad_(due)
    out = fused_linear_cut(**inputs, **OBJECTIVE, chunk_rows=5)
    logits = {
        name: torch.zeros(23, 41, device="meta", requires_grad=due)
        for name in ("logits", "logits_authentic")
    }
    rest = {"labels": inputs["labels"], "token_weight": inputs["token_weight"]}
    is_negative = torch.ones(23, dtype=torch.bool, device="meta")
    whole = cut_token_loss(**logits, logits_fake=None, **rest, is_negative=is_negative, **OBJECTIVE)
    if due:
        (2 * out.loss + whole.loss).backward()
        assert inputs["weight"].grad.shape == (41, 7) and logits["logits"].grad.shape == (23, 41)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype):
    inputs = random_inputs(300, 200, 5003, 64, dtype=dtype)
    inputs["weight"] /= 4
    exact = {name: x.double() if x.dtype == dtype else x for name, x in inputs.items()}
    truth, truth_gradients = evaluate(from_whole_logits, exact)
    on_gpu = {name: tensor.cuda() for name, tensor in inputs.items()}
    out, gradients = evaluate(fused_linear_cut, on_gpu, chunk_rows=64)
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    assert out.loss.item() == pytest.approx(truth.loss.item(), rel=tolerance)
    for name, gradient in gradients.items():
        wanted = truth_gradients[name]
        assert (gradient.cpu().double() - wanted).norm() < tolerance * wanted.norm(), name


# ---- arguments ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lam": -1.0}, "lam"),
        ({"chunk_rows": 0}, "chunk_rows must be at least 1"),
        ({"backend": "triton2"}, "'triton2'"),
        ({"hidden": torch.zeros(23, 7)}, "hidden is torch.float32 but weight is torch.float64"),
        ({"hidden": torch.zeros(23, 8).double()}, r"hidden must have shape \(23, 7\)"),
        ({"hidden": torch.zeros(1, 23, 7).double()}, "hidden must have two dimensions"),
        ({"weight": torch.zeros(0, 7).double()}, "ZeRO-3"),
        ({"weight": torch.zeros(0).double()}, "weight must have two dimensions"),
        ({"hidden_authentic": torch.zeros(24, 7).double()}, "hidden_authentic has 24 rows, hidden only 23"),
        ({"hidden_authentic": None}, "hidden_fake is given without hidden_authentic"),
        ({"hidden_fake": torch.zeros(8, 7).double()}, r"hidden_fake must have shape \(9, 7\)"),
        ({"labels": torch.full((23,), 41)}, r"labels\[0\] is 41"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, r"labels must have shape \(23,\)"),
        ({"token_weight": torch.ones(9)}, r"token_weight must have shape \(23,\)"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fused_linear_cut(**{**random_inputs(23, 9, 41, 7), **OBJECTIVE, **change})


# ---- λ₂, σ, and an authentic context that is only read ----


@pytest.mark.parametrize("chunk_rows", [None, 7])
@pytest.mark.parametrize(
    "options",
    [{"lam_instruction": 1.05, "floor": 0.01}, {"authentic_loss": False}, {"lam": 0.0, "authentic_loss": False}],
)
def test_options_against_whole_logits(options, chunk_rows):
    inputs = random_inputs(30, 18, 41, 8)
    expected = evaluate(from_whole_logits, inputs, **options)
    assert expected[0].inappropriate.any()
    actual = evaluate(fused_linear_cut, inputs, chunk_rows=chunk_rows, **options)
    assert_same(actual, expected)
    assert (actual[1]["hidden_authentic"] is None) == ("authentic_loss" in options)
