"""λ₂, σ and the loss of the authentic context: the reference by hand and by finite differences, backends against it."""

from __future__ import annotations

import math

import pytest
import torch
from cut_cases import (
    FIELDS,
    INF,
    OBJECTIVE,
    assert_same,
    double,
    each_backend,
    evaluate,
    on_device,
    one_row,
    random_rows,
)
from test_cut_loss import paper_loss

from cut_dist.kernels.cut_loss import cut_token_loss, cut_token_loss_reference

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, under the interpreter, of infinities
NEUTRAL = {"lam_instruction": None, "floor": 0.0, "authentic_loss": True}
OPTIONS = [
    {"lam_instruction": 1.3},
    {"floor": 0.2},
    {"lam": 0.8, "lam_instruction": 0.9, "floor": 0.05},
    {"authentic_loss": False},
    {"lam": 0.0},
    {"lam": 0.0, "lam_instruction": 1.1, "floor": 0.01, "authentic_loss": False},
]


def contexts(p: float, p_authentic: float, p_fake: float, dtype: torch.dtype = torch.float64) -> dict:
    """One row of two tokens in three contexts, of which the label 0 has these probabilities."""
    logits = (one_row(math.log(x), math.log1p(-x), dtype=dtype) for x in (p, p_authentic, p_fake))
    names = ("logits", "logits_authentic", "logits_fake")
    return dict(zip(names, logits, strict=True)) | {"labels": torch.tensor([0])}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),  # 0.8 > 1.1·0.5
        ({"lam_instruction": 1.1}, True),  # 0.8 > 1.1·0.7
        ({"lam_instruction": 1.2}, False),  # 0.8 < 1.2·0.7
        ({"floor": 0.79}, True),
        ({"floor": 0.81}, False),
        ({"lam_instruction": 1.1, "floor": 0.79}, True),
        ({"lam_instruction": 1.1, "floor": 0.81}, False),
        ({"floor": 1.0}, False),
        ({"lam": 1.7}, False),
        ({"lam": 1.7, "lam_instruction": 0.1}, False),  # the other tests only take away
        ({"lam": 0.0}, True),
    ],
)
def test_each_test_by_hand(options, expected):
    data = contexts(0.7, 0.8, 0.5)
    for function in (cut_token_loss_reference, cut_token_loss):
        out = function(**data, **{"lam": 1.1, "alpha": 1.0, "gamma": 0.0, **options})
        assert out.inappropriate.item() is expected
        wanted = -math.log(0.3) if expected else -math.log(0.7)
        assert out.loss_instruction.item() == pytest.approx(wanted, rel=1e-12)
        assert out.loss_authentic.item() == pytest.approx(-math.log(0.8), rel=1e-12)


@pytest.mark.parametrize("options", OPTIONS)
def test_reference_against_a_finite_difference(options):
    """The difference quotient holds U and w fixed. Without its loss the authentic context has none."""
    data = random_rows(9, 6, seed=1, scale=1.0)
    data["token_weight"] = data["token_weight"].double()
    objective = OBJECTIVE | options
    out, grad, grad_authentic = evaluate(cut_token_loss_reference, **data, **objective)
    assert out.inappropriate.any()
    judged = data["is_negative"] & objective.get("authentic_loss", True)
    w = objective["alpha"] * (objective["gamma"] * out.logp_authentic).exp()
    fixed = (data["labels"], out.inappropriate, w, judged, data["token_weight"])
    both = [data["logits"], data["logits_authentic"]]
    assert paper_loss(*both, *fixed) == pytest.approx(out.loss.item(), rel=1e-12)
    for which, gradient in enumerate((grad, grad_authentic)):
        if gradient is None:
            assert which == 1 and options["authentic_loss"] is False
            continue
        numeric = torch.empty_like(gradient).flatten()
        for index in range(gradient.numel()):
            shift = torch.zeros(gradient.numel(), dtype=torch.float64)
            shift[index] = 1e-5
            up, down = (
                paper_loss(*(z + sign * shift.view_as(z) if i == which else z for i, z in enumerate(both)), *fixed)
                for sign in (1, -1)
            )
            numeric[index] = (up - down) / 2e-5
        torch.testing.assert_close(gradient, numeric.view_as(gradient), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("contrast", ["fake", "instruction"])
@pytest.mark.parametrize("options", OPTIONS)
@each_backend
def test_backend_against_reference(backend, options, contrast):
    data = random_rows(40, 17, dtype=torch.float32, seed=3)
    if contrast == "instruction":
        data["logits_fake"] = None
    objective = OBJECTIVE | options
    expected = evaluate(cut_token_loss_reference, **double(data), **objective)
    assert expected[0].inappropriate.any()
    for inplace in (False, True):
        owned = data | {name: data[name].clone() for name in ("logits", "logits_authentic")}
        actual = evaluate(cut_token_loss, **owned, **objective, backend=backend, inplace=inplace)
        assert_same(actual, expected, rtol=1e-4, atol=2e-6)
        assert (actual[2] is None) == ("authentic_loss" in options)


@pytest.mark.parametrize("options", OPTIONS)
def test_float64_backend_against_reference(options):
    data, objective = random_rows(40, 17, seed=3), OBJECTIVE | options
    expected = evaluate(cut_token_loss_reference, **data, **objective)
    assert_same(evaluate(cut_token_loss, **data, **objective), expected, rtol=1e-11, atol=1e-13)


@each_backend
def test_neutral_options_change_no_bit(backend):
    data = random_rows(24, 317, dtype=torch.float32)
    plain = evaluate(cut_token_loss, **data, **OBJECTIVE, backend=backend)
    for neutral in (NEUTRAL, {"lam_instruction": 0.0}):
        given = evaluate(cut_token_loss, **data, **OBJECTIVE, **neutral, backend=backend)
        for field in ("loss", *FIELDS):
            assert torch.equal(getattr(given[0], field), getattr(plain[0], field)), field
        assert torch.equal(given[1], plain[1]) and torch.equal(given[2], plain[2])


def detected(data: dict, backend: str, **objective) -> list[list[bool]]:
    """What the backend and the reference find inappropriate."""
    place, objective = on_device(backend, data), {"alpha": 1.0, "gamma": 1.0} | objective
    outs = (cut_token_loss(**place, **objective, backend=backend), cut_token_loss_reference(**place, **objective))
    return [out.inappropriate.tolist() for out in outs]


@each_backend
def test_equal_probabilities_do_not_pass_at_lambda_2_one(backend):
    """The same row in both contexts gives the same p to the last bit: not above, so not inappropriate."""
    data = random_rows(8, 4001, dtype=torch.float32)
    data["logits_authentic"] = data["logits"].clone()
    assert not any(map(any, detected(data, backend, lam=0.0, lam_instruction=1.0)))
    negative = (data["is_negative"] & (data["labels"] != -100)).tolist()
    assert detected(data, backend, lam=0.0, lam_instruction=1 - 1e-6) == [negative] * 2


@each_backend
def test_a_floor_of_one_leaves_nothing_and_half_is_not_above_half(backend):
    certain = contexts(0.5, 0.5, 0.1, torch.float32) | {"logits_authentic": one_row(200.0, 0.0)}  # p⁻ rounds to 1
    assert detected(certain, backend, lam=1.1, floor=1.0) == [[False]] * 2
    assert detected(certain, backend, lam=1.1, floor=1 - 1e-6) == [[True]] * 2
    assert detected(contexts(0.5, 1e-3, 1e-4, torch.float32), backend, lam=1.1, floor=1e-2) == [[False]] * 2


@each_backend
def test_probabilities_of_zero(backend):
    """p⁻ = 0 is above nothing; p = 0 and p⁺ = 0 are below any p⁻; λ = 0 takes whatever has any probability."""
    impossible = one_row(-INF, 0.0)
    data = contexts(0.5, 0.5, 0.5, torch.float32)
    for options in ({}, {"lam_instruction": 1.0}, {"lam": 0.0}, {"lam": 0.0, "lam_instruction": 0.0}):
        objective = {"lam": 0.9} | options
        assert detected(data | {"logits_authentic": impossible}, backend, **objective) == [[False]] * 2
    assert detected(data | {"logits": impossible}, backend, lam=0.9, lam_instruction=1e9) == [[True]] * 2
    assert detected(data | {"logits_fake": impossible}, backend, lam=1e9, lam_instruction=0.9) == [[True]] * 2
    far = data | {"logits_authentic": one_row(-1000.0, 0.0), "logits_fake": one_row(0.0, -1000.0)}
    assert detected(far, backend, lam=0.0) == [[True]] * 2  # though p⁻/p⁺ is far below the smallest float


@each_backend
def test_authentic_logits_that_are_only_read(backend):
    """No gradient, also where one is asked for; in place they stay as they are; and w still comes from them."""
    data = on_device(backend, random_rows(12, 50, dtype=torch.float32))
    before = data["logits_authentic"].clone()
    leaf, authentic = data["logits"].clone().requires_grad_(), data["logits_authentic"].requires_grad_()
    out = cut_token_loss(
        **{**data, "logits": leaf * 1}, **OBJECTIVE, authentic_loss=False, inplace=True, backend=backend
    )
    out.loss.backward()
    assert leaf.grad.any() and authentic.grad is None and torch.equal(authentic.detach(), before)
    assert out.loss_authentic.eq(0).all() and out.logp_authentic.any()
    alone = {**data, "logits": leaf.detach()}
    assert not cut_token_loss(**alone, **OBJECTIVE, authentic_loss=False, backend=backend).loss.requires_grad
