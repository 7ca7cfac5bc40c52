"""The CUT loss on logits: the reference against the paper's formula, every backend against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from cut_cases import (
    ANY_OBJECTIVE,
    FIELDS,
    INF,
    OBJECTIVE,
    assert_same,
    check_properties,
    each_backend,
    evaluate,
    on_device,
    one_row,
    random_rows,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cut_dist.kernels import cut_loss_torch
from cut_dist.kernels.cut_loss import cut_token_loss, cut_token_loss_reference

# ---- the reference ----


def test_a_loss_derived_by_hand():
    # Two tokens, label 0: p = 3/4, p⁻ = 4/5, p⁺ = 1/2. 4/5 > 1.1·1/2, so it is inappropriate.
    # w = α·p⁻^γ = 0.5·(4/5)² = 0.32;  -w·log(1 - 3/4) = 0.32·log 4;  -log p⁻ = log(5/4).
    # ∂/∂z_0 = w·p = 0.24;  ∂/∂z⁻_0 = -(1 - p⁻) = -0.2.
    logits, authentic, fake = (one_row(math.log(odds), 0.0, dtype=torch.float64) for odds in (3, 4, 1))
    for function in (cut_token_loss_reference, cut_token_loss):
        out, grad, grad_authentic = evaluate(
            function,
            logits=logits,
            logits_authentic=authentic,
            logits_fake=fake,
            labels=torch.tensor([0]),
            lam=1.1,
            alpha=0.5,
            gamma=2.0,
        )
        assert out.inappropriate.tolist() == [True]
        assert out.loss_instruction.item() == pytest.approx(0.32 * math.log(4), rel=1e-12)
        assert out.loss_authentic.item() == pytest.approx(math.log(1.25), rel=1e-12)
        assert out.loss.item() == pytest.approx(0.32 * math.log(4) + math.log(1.25), rel=1e-12)
        assert out.logp.exp().item() == pytest.approx(0.75)
        assert out.logp_authentic.exp().item() == pytest.approx(0.8)
        assert out.logp_fake.exp().item() == pytest.approx(0.5)
        torch.testing.assert_close(grad, one_row(0.24, -0.24, dtype=torch.float64), rtol=1e-12, atol=0)
        torch.testing.assert_close(
            grad_authentic, one_row(-0.2, 0.2, dtype=torch.float64), rtol=1e-12, atol=0
        )


def paper_loss(logits, authentic, labels, in_u, w, is_negative, token_weight) -> float:
    """Paper eq. 6 and 7 with U and w given, in plain Python, row by row."""
    total = 0.0
    for r, y in enumerate(labels.tolist()):
        if y == -100:
            continue
        p, p_authentic = (torch.softmax(z[r], 0)[y].item() for z in (logits, authentic))
        row = -w[r].item() * math.log(1 - p) if in_u[r] else -math.log(p)
        total += token_weight[r].item() * (row - (math.log(p_authentic) if is_negative[r] else 0.0))
    return total


@pytest.mark.parametrize("contrast", ["fake", "instruction"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_reference_against_a_finite_difference(gamma, contrast):
    """The difference quotient holds U and w fixed: they carry no gradient."""
    data = random_rows(9, 6, seed=1, scale=1.0)
    data["token_weight"] = data["token_weight"].double()
    if contrast == "instruction":
        data["logits_fake"] = None
    out, *gradients = evaluate(cut_token_loss_reference, **data, lam=1.1, alpha=0.7, gamma=gamma)
    assert 0 < out.inappropriate.sum() < data["is_negative"].sum()
    w = (
        0.7
        * torch.softmax(data["logits_authentic"], 1).gather(1, data["labels"].clamp(min=0)[:, None])[:, 0]
        ** gamma
    )
    fixed = (data["labels"], out.inappropriate, w, data["is_negative"], data["token_weight"])
    contexts = [data["logits"], data["logits_authentic"]]
    assert paper_loss(*contexts, *fixed) == pytest.approx(out.loss.item(), rel=1e-12)
    step = 1e-5
    for which, gradient in enumerate(gradients):
        numeric = torch.zeros_like(gradient)
        for index in range(gradient.numel()):
            shift = (
                torch.zeros_like(gradient)
                .view(-1)
                .index_fill_(0, torch.tensor(index), step)
                .view_as(gradient)
            )
            up, down = (
                paper_loss(*(z + sign * shift if i == which else z for i, z in enumerate(contexts)), *fixed)
                for sign in (1, -1)
            )
            numeric.view(-1)[index] = (up - down) / (2 * step)
        torch.testing.assert_close(gradient, numeric, rtol=1e-7, atol=1e-9)


# ---- every backend against the reference ----


@pytest.mark.parametrize("contrast", ["fake", "instruction"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(1, 2), (7, 41), (13, 1023), (40, 317), (16, 32000)])
def test_backend_against_reference(shape, gamma, contrast):
    data = random_rows(*shape, seed=sum(shape))
    if contrast == "instruction":
        data["logits_fake"] = None
    objective = {"lam": 1.1, "alpha": 0.5, "gamma": gamma}
    expected = evaluate(cut_token_loss_reference, **data, **objective)
    for inplace in (False, True):
        actual = evaluate(cut_token_loss, **data, **objective, inplace=inplace)
        assert_same(actual, expected, rtol=1e-11, atol=1e-13)
    single = {name: x.float() if x is not None and x.is_floating_point() else x for name, x in data.items()}
    assert_same(evaluate(cut_token_loss, **single, **objective), expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("is_negative", [None, "some", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_optional_arguments(weighted, is_negative):
    data = random_rows(20, 50)
    if not weighted:
        data["token_weight"] = None
    if is_negative is None:
        data["is_negative"] = None
    elif is_negative == "none":
        data["is_negative"] = torch.zeros(20, dtype=torch.bool)
    expected = evaluate(cut_token_loss_reference, **data, **OBJECTIVE)
    assert_same(evaluate(cut_token_loss, **data, **OBJECTIVE), expected, rtol=1e-11, atol=1e-13)
    if is_negative == "none":
        alone = data | {"logits_authentic": None, "logits_fake": None, "is_negative": None}
        out, grad, _ = evaluate(cut_token_loss, **alone, **OBJECTIVE)
        assert out.loss.item() == pytest.approx(expected[0].loss.item(), rel=1e-12)
        torch.testing.assert_close(grad, expected[1])


@pytest.mark.parametrize("masks_known", [True, False], ids=["cpu", "as_on_an_accelerator"])
@pytest.mark.parametrize("rows_per_block", [1, 4])
def test_blocks_and_unread_rows(rows_per_block, masks_known, monkeypatch):
    """Ignored rows, and Align-P rows of judged contexts, may hold anything; gradients there are exactly 0."""
    data = random_rows(23, 11)
    data["is_negative"] = (torch.arange(23) < 9) | (
        torch.arange(23) == 17
    )  # blocks of both kinds and mixed ones
    expected = evaluate(cut_token_loss_reference, **data, **OBJECTIVE)
    monkeypatch.setattr(cut_loss_torch, "_BLOCK_BYTES_CPU", rows_per_block * 11 * 4)
    if not masks_known:
        monkeypatch.setattr(cut_loss_torch, "_known_empty", lambda mask: False)
        monkeypatch.setattr(cut_loss_torch, "_known_full", lambda mask: False)
    ignored = data["labels"] == -100
    unread = ignored | ~data["is_negative"]
    data["logits"][ignored] = math.nan
    data["token_weight"][ignored] = math.nan
    for name in ("logits_authentic", "logits_fake"):
        data[name][unread] = torch.tensor([math.nan, INF, -INF] * 4)[:11].double()
    for inplace in (False, True):
        actual = evaluate(cut_token_loss, **data, **OBJECTIVE, inplace=inplace)
        assert_same(actual, expected, rtol=1e-11, atol=1e-13)
        assert actual[1][ignored].eq(0).all() and actual[2][unread].eq(0).all()
        for field in FIELDS:
            assert getattr(actual[0], field)[ignored].eq(0).all(), field
        assert actual[0].logp_fake[unread].eq(0).all() and actual[0].logp_authentic[unread].eq(0).all()


def test_all_rows_ignored_and_no_rows():
    data = random_rows(6, 5)
    data["labels"][:] = -100
    out, grad, grad_authentic = evaluate(cut_token_loss, **data, **OBJECTIVE)
    assert out.loss.item() == 0 and grad.eq(0).all() and grad_authentic.eq(0).all()
    empty = {name: tensor[:0] for name, tensor in data.items()}
    out, grad, _ = evaluate(cut_token_loss, **empty, **OBJECTIVE)
    assert out.loss.item() == 0 and grad.shape == (0, 5) and out.inappropriate.shape == (0,)


def test_non_contiguous_logits():
    data = random_rows(12, 30)
    expected = evaluate(cut_token_loss_reference, **data, **OBJECTIVE)
    names = ("logits", "logits_authentic")
    wide = torch.full((30, 24), math.nan, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        for column, name in enumerate(names):
            wide[:, column::2] = data[name].T
    views = {name: wide[:, column::2].T for column, name in enumerate(names)}
    assert not any(view.is_contiguous() for view in views.values())
    out = cut_token_loss(**(data | views), **OBJECTIVE)
    out.loss.backward()
    assert_same((out, *(wide.grad[:, column::2].T for column in (0, 1))), expected, rtol=1e-11, atol=1e-13)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(0, 12), vocabulary=st.integers(1, 70), **ANY_OBJECTIVE)
@example(seed=0, rows=1, vocabulary=1, scale=1.0, gamma=0.0, alpha=1.0, lam=2.0)
def test_properties_of_random_rows(seed, rows, vocabulary, scale, **objective):
    data = random_rows(rows, vocabulary, seed=seed, scale=scale)
    check_properties("torch", data, objective, rtol=1e-9, atol=1e-11)


# ---- autograd ----


@pytest.mark.parametrize("inplace", [False, True])
def test_upstream_factor(inplace):
    data = random_rows(15, 40, dtype=torch.float32)
    _, grad, grad_authentic = evaluate(cut_token_loss, **data, **OBJECTIVE)
    _, *scaled = evaluate(cut_token_loss, **data, **OBJECTIVE, inplace=inplace, upstream=-2.5)
    torch.testing.assert_close(scaled[0], -2.5 * grad)
    torch.testing.assert_close(scaled[1], -2.5 * grad_authentic)


def test_called_twice_before_one_backward():
    first, second = random_rows(8, 20, seed=1), random_rows(8, 20, seed=2)
    grads = [evaluate(cut_token_loss, **data, **OBJECTIVE)[1] for data in (first, second)]
    weight = torch.eye(20).double().requires_grad_()  # shared, as a model's weights are
    losses = [
        cut_token_loss(**{**data, "logits": data["logits"] @ weight}, **OBJECTIVE).loss
        for data in (first, second)
    ]
    (losses[0] + 3 * losses[1]).backward()
    torch.testing.assert_close(
        weight.grad, first["logits"].T @ grads[0] + 3 * second["logits"].T @ grads[1]
    )


def test_backward_twice_accumulates_and_in_place_refuses():
    data = random_rows(8, 20)
    _, grad, _ = evaluate(cut_token_loss, **data, **OBJECTIVE)
    leaf = data["logits"].clone().requires_grad_()
    out = cut_token_loss(**{**data, "logits": leaf}, **OBJECTIVE)
    for factor in (2.0, 1.0, 1.0):
        (factor * out.loss).backward(retain_graph=True)
    torch.testing.assert_close(leaf.grad, 4 * grad)

    owned = (data["logits"].clone().requires_grad_() * 1).requires_grad_()
    out = cut_token_loss(**{**data, "logits": owned}, **OBJECTIVE, inplace=True)
    (2.0 * out.loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (2.0 * out.loss).backward()


def test_logits_are_left_alone_unless_in_place():
    data = random_rows(8, 20, dtype=torch.float32)
    before = {name: data[name].clone() for name in ("logits", "logits_authentic", "logits_fake")}
    logits, authentic = (data[name].clone().requires_grad_() for name in ("logits", "logits_authentic"))
    cut_token_loss(logits, authentic, *list(data.values())[2:4], **OBJECTIVE)
    assert torch.equal(logits, before["logits"]) and torch.equal(authentic, before["logits_authentic"])
    _, grad, _ = evaluate(cut_token_loss, **data, **OBJECTIVE)
    data["logits"] = data["logits"].clone().requires_grad_()
    cut_token_loss(**data, **OBJECTIVE, inplace=True)
    assert torch.equal(data["logits"], grad)  # and no gradient was due for the others
    assert torch.equal(data["logits_authentic"], before["logits_authentic"])
    assert torch.equal(data["logits_fake"], before["logits_fake"])


@each_backend
def test_logits_that_another_backward_needs_are_not_overwritten_in_silence(backend):
    data = on_device(backend, random_rows(4, 20, dtype=torch.float32))
    logits = data["logits"].clone().requires_grad_().exp()  # whose backward needs its result
    out = cut_token_loss(**{**data, "logits": logits}, **OBJECTIVE, inplace=True, backend=backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.loss.backward()


@pytest.mark.parametrize("due", [(True, False), (False, True), (False, False)])
def test_only_the_gradients_that_are_due(due):
    data = random_rows(8, 20)
    _, *grads = evaluate(cut_token_loss, **data, **OBJECTIVE)
    for name, wanted in zip(("logits", "logits_authentic"), due, strict=True):
        data[name] = data[name].clone().requires_grad_(wanted)
    data["logits_fake"].requires_grad_()  # asked for in vain
    out = cut_token_loss(**data, **OBJECTIVE)
    assert out.loss.requires_grad == any(due)
    assert not any(getattr(out, field).requires_grad for field in FIELDS)
    if any(due):
        out.loss.backward()
    for name, wanted, grad in zip(("logits", "logits_authentic"), due, grads, strict=True):
        assert (data[name].grad is not None) == wanted
        if wanted:
            torch.testing.assert_close(data[name].grad, grad)
    assert data["logits_fake"].grad is None


def test_no_gradient_work_under_no_grad():
    data = random_rows(8, 20, dtype=torch.float32)
    data["logits"].requires_grad_()
    before = data["logits"].detach().clone()
    with torch.no_grad():
        out = cut_token_loss(**data, **OBJECTIVE, inplace=True)
    assert not out.loss.requires_grad and torch.equal(data["logits"], before)


def test_in_place_refuses_one_tensor_in_two_roles():
    data = random_rows(8, 20)
    data["logits_fake"] = data["logits"]
    with pytest.raises(ValueError, match="two contexts"):
        cut_token_loss(**data, **OBJECTIVE, inplace=True)
    assert_same(
        evaluate(cut_token_loss, **data, **OBJECTIVE),
        evaluate(cut_token_loss_reference, **(data | {"logits_fake": None}), **OBJECTIVE),
        rtol=1e-11,
        atol=1e-13,
    )
