"""The CUT loss where numbers are extreme: p at 0 and 1, masked tokens, long rows."""

from __future__ import annotations

import math

import pytest
import torch
from cut_cases import FIELDS, INF, OBJECTIVE, evaluate, one_row
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cut_dist.kernels.cut_loss import cut_token_loss, cut_token_loss_reference


def unlikely(logits: Tensor, **objective):
    """One row of unlikelihood of token 0 with w = α: whatever p⁻ is, p⁺ is far below."""
    judged = torch.zeros_like(logits)
    fake = judged.clone()
    fake[:, 0] = -50
    if logits.shape[1] == 1:
        judged, fake = torch.zeros_like(logits), torch.zeros_like(logits)
        objective = {"lam": 0.5} | objective
    objective = {"lam": 1.1, "alpha": 1.0, "gamma": 0.0} | objective
    result = evaluate(
        cut_token_loss,
        logits=logits,
        logits_authentic=judged,
        logits_fake=fake,
        labels=torch.zeros(len(logits), dtype=torch.int64),
        **objective,
    )
    assert result[0].inappropriate.all()
    return result


@pytest.mark.parametrize("rest", [0.5, 1e-4, 2e-6, 1e-8, 3e-12, 1e-30, 1e-42])
@pytest.mark.parametrize("vocabulary", [3, 5000])
def test_precision_as_p_nears_one(vocabulary, rest):
    """From float32 logits with 1 - p = `rest`: loss and each gradient element within 1e-5, relative."""
    others = torch.randn(vocabulary - 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lead = math.log1p(-rest) - math.log(rest) + others.logsumexp(0)
    logits = torch.cat([lead[None], others])[None].float()
    log_others = logits[:, 1:].double().logsumexp(1)
    margin = log_others - logits[:, 0].double()
    q = (logits[:, 1:].double() - log_others).exp()
    p, log_rest = torch.sigmoid(-margin), torch.nn.functional.logsigmoid(margin)

    out, grad, _ = unlikely(logits)
    torch.testing.assert_close(out.loss_instruction.double(), -log_rest, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad[:, 0].double(), p, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad[:, 1:].double(), -p * q, rtol=1e-5, atol=0)

    labels = torch.tensor([0])
    out, grad, _ = evaluate(
        cut_token_loss, logits=logits, logits_authentic=None, logits_fake=None, labels=labels, **OBJECTIVE
    )
    smallest = 1.2e-38  # below, float32 has fewer digits to give
    torch.testing.assert_close(
        out.logp.double(), torch.nn.functional.logsigmoid(-margin), rtol=1e-5, atol=smallest
    )
    torch.testing.assert_close(grad[:, 0].double(), -torch.sigmoid(margin), rtol=1e-5, atol=smallest)


def test_a_long_row_keeps_its_digits():
    """softmax adds up a row of 32000 with an error of 5e-6, so that the gradient would not sum to 0."""
    logits = 4 * torch.randn(64, 32000, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64)
    out, grad, _ = evaluate(
        cut_token_loss, logits=logits, logits_authentic=None, logits_fake=None, labels=labels, **OBJECTIVE
    )
    at_label = grad.gather(1, labels[:, None]).squeeze(1).double()
    assert (grad.double().sum(1) / at_label).abs().max() < 1e-6
    exact = logits.double().log_softmax(1).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(out.logp.double(), exact, rtol=3e-7, atol=1e-7)


def test_p_is_one_to_the_last_bit():
    out, grad, _ = unlikely(one_row(200.0, 0.0, 0.0, dtype=torch.float32))
    assert out.logp.item() == 0
    assert out.loss_instruction.item() == pytest.approx(200 - math.log(2), rel=1e-6)
    torch.testing.assert_close(grad, one_row(1.0, -0.5, -0.5))


def test_p_is_zero():
    """A label that is masked away: the loss is infinite, the gradient the usual q - onehot."""
    out, grad, _ = evaluate(
        cut_token_loss,
        logits=one_row(-INF, 1.0, 1.0),
        logits_authentic=None,
        logits_fake=None,
        labels=torch.tensor([0]),
        **OBJECTIVE,
    )
    assert out.loss.item() == INF
    torch.testing.assert_close(grad, one_row(-1.0, 0.5, 0.5))
    out, grad, _ = unlikely(one_row(-INF, 1.0, 1.0))  # unlikelihood has nothing left to do
    assert out.loss_instruction.item() == 0 and grad.eq(0).all()


def test_masked_logits_get_no_gradient():
    out, grad, _ = unlikely(one_row(math.log(2.0), 0.0, -INF, 0.0))
    assert out.loss_instruction.item() == pytest.approx(math.log(2))
    torch.testing.assert_close(grad, one_row(0.5, -0.25, 0.0, -0.25))


@pytest.mark.parametrize(
    "logits", [one_row(3.0), one_row(3.0, -INF, -INF)], ids=["one token", "others masked"]
)
def test_only_the_label_has_probability(logits):
    """log(1 - p) is -inf. The gradient is -w·p·(q - onehot) with q = 0; without weight nothing is left."""
    out, grad, _ = unlikely(logits)
    assert out.loss_instruction.item() == INF and out.logp.item() == 0
    torch.testing.assert_close(
        grad, torch.nn.functional.one_hot(torch.tensor([0]), logits.shape[1]).float()
    )
    out, grad, _ = unlikely(logits, alpha=0.0)
    assert out.loss_instruction.item() == 0 and grad.eq(0).all()
    out, grad, _ = unlikely(logits, token_weight=torch.zeros(1))
    assert torch.isfinite(out.loss) and grad.eq(0).all()


def test_a_row_without_any_probability_is_not_hidden():
    out, _, _ = evaluate(
        cut_token_loss,
        logits=one_row(-INF, -INF),
        logits_authentic=None,
        logits_fake=None,
        labels=torch.tensor([0]),
        **OBJECTIVE,
    )
    assert out.loss.isnan()


def test_lambda_decides_in_the_log_domain():
    """p⁻ and p⁺ are far below the smallest float, their ratio is e²."""
    logits, authentic, fake = one_row(0.0, 0.0), one_row(-998.0, 0.0), one_row(-1000.0, 0.0)
    labels = torch.tensor([0])
    for lam, expected in ((math.exp(1.99), True), (math.exp(2.01), False)):
        for function in (cut_token_loss, cut_token_loss_reference):
            out = function(logits, authentic, fake, labels, lam=lam, alpha=1.0, gamma=0.0)
            assert out.inappropriate.item() is expected


LOGIT = st.one_of(
    st.floats(-30, 30, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.sampled_from([0.0, 88.0, -104.0, 1e4, -INF]),
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), vocabulary=st.integers(1, 6), rows=st.integers(1, 4))
@pytest.mark.parametrize("contrast", ["fake", "instruction"])
def test_nothing_is_ever_nan(contrast, data, vocabulary, rows):
    """Any logits that are finite or masked: no NaN, gradients finite and bounded by the row's weight."""
    row = st.lists(LOGIT, min_size=vocabulary, max_size=vocabulary)
    row = row.filter(lambda values: max(values) > -INF)
    draw = [torch.tensor(data.draw(st.lists(row, min_size=rows, max_size=rows))) for _ in range(3)]
    if contrast == "instruction":
        draw[2] = None
    labels = torch.tensor(data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=rows, max_size=rows)))
    alpha, gamma = data.draw(st.floats(0, 4)), data.draw(st.floats(0, 4))
    lam = data.draw(st.floats(0.01, 3))
    leaves = [z.clone().requires_grad_() for z in draw[:2]]
    out = cut_token_loss(*leaves, draw[2], labels, lam=lam, alpha=alpha, gamma=gamma)
    out.loss.backward()
    for field in ("loss", *FIELDS):
        assert not getattr(out, field).isnan().any(), field
    for leaf, bound in zip(leaves, (max(1.0, alpha), 1.0), strict=True):
        assert leaf.grad.abs().max() <= bound * (1 + 1e-6)
