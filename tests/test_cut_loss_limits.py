"""The CUT loss where numbers are extreme: p at 0 and 1, masked tokens, long rows."""

from __future__ import annotations

import math

import pytest
import torch
from cut_cases import FIELDS, INF, OBJECTIVE, each_backend, evaluate, on_device, one_row, random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cut_dist.kernels.cut_loss import cut_token_loss, cut_token_loss_reference

# numpy, on which Triton's interpreter computes, warns of infinities that are meant.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def unlikely(logits: Tensor, backend: str, **objective):
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
        backend=backend,
        **objective,
    )
    assert result[0].inappropriate.all()
    return result


VOCABULARIES = (2, 3, 127, 5000, 32000, 49152, 128256, 151936)


def likely(logits: Tensor, labels: Tensor, backend: str):
    """Rows of likelihood."""
    contexts = {"logits": logits, "logits_authentic": None, "logits_fake": None}
    return evaluate(cut_token_loss, **contexts, labels=labels, backend=backend, **OBJECTIVE)


@pytest.mark.parametrize(
    ("vocabulary", "rest"),
    [(v, 1e-8) for v in VOCABULARIES]
    + [(v, rest) for v in (3, 5000) for rest in (0.5, 1e-4, 2e-6, 3e-12, 1e-30, 1e-42)],
)
@each_backend
def test_precision_as_p_nears_one(backend, vocabulary, rest):
    """From float32 logits with 1 - p = `rest`: loss and each gradient element within 1e-5, relative."""
    others = torch.randn(vocabulary - 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lead = math.log1p(-rest) - math.log(rest) + others.logsumexp(0)
    logits = torch.cat([lead[None], others])[None].float()
    log_others = logits[:, 1:].double().logsumexp(1)
    margin = log_others - logits[:, 0].double()
    q = (logits[:, 1:].double() - log_others).exp()
    p, log_rest = torch.sigmoid(-margin), torch.nn.functional.logsigmoid(margin)

    out, grad, _ = unlikely(logits, backend)
    torch.testing.assert_close(out.loss_instruction.double(), -log_rest, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad[:, 0].double(), p, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad[:, 1:].double(), -p * q, rtol=1e-5, atol=0)

    out, grad, _ = likely(logits, torch.tensor([0]), backend)
    smallest = 1.2e-38  # below, float32 has fewer digits to give
    torch.testing.assert_close(
        out.logp.double(), torch.nn.functional.logsigmoid(-margin), rtol=1e-5, atol=smallest
    )
    torch.testing.assert_close(grad[:, 0].double(), -torch.sigmoid(margin), rtol=1e-5, atol=smallest)


@each_backend
def test_a_long_row_keeps_its_digits(backend):
    """softmax adds up a row of 32000 with an error of 5e-6, so that the gradient would not sum to 0."""
    logits = 4 * torch.randn(16, 32000, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16)
    out, grad, _ = likely(logits, labels, backend)
    at_label = grad.gather(1, labels[:, None]).squeeze(1).double()
    assert (grad.double().sum(1) / at_label).abs().max() < 1e-6
    exact = logits.double().log_softmax(1).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(out.logp.double(), exact, rtol=3e-7, atol=1e-7)


@each_backend
def test_p_is_one_to_the_last_bit(backend):
    out, grad, _ = unlikely(one_row(200.0, 0.0, 0.0), backend)
    assert out.logp.item() == 0
    assert out.loss_instruction.item() == pytest.approx(200 - math.log(2), rel=1e-6)
    torch.testing.assert_close(grad, one_row(1.0, -0.5, -0.5))


@each_backend
def test_p_is_zero(backend):
    """A label that is masked away: the loss is infinite, the gradient the usual q - onehot."""
    out, grad, _ = likely(one_row(-INF, 1.0, 1.0), torch.tensor([0]), backend)
    assert out.loss.item() == INF
    torch.testing.assert_close(grad, one_row(-1.0, 0.5, 0.5))
    out, grad, _ = unlikely(one_row(-INF, 1.0, 1.0), backend)  # unlikelihood has nothing left to do
    assert out.loss_instruction.item() == 0 and grad.eq(0).all()


@each_backend
def test_masked_logits_get_no_gradient(backend):
    out, grad, _ = unlikely(one_row(math.log(2.0), 0.0, -INF, 0.0), backend)
    assert out.loss_instruction.item() == pytest.approx(math.log(2))
    torch.testing.assert_close(grad, one_row(0.5, -0.25, 0.0, -0.25))


@pytest.mark.parametrize(
    "logits", [one_row(3.0), one_row(3.0, -INF, -INF)], ids=["one token", "others masked"]
)
@each_backend
def test_only_the_label_has_probability(backend, logits):
    """log(1 - p) is -inf. The gradient is -w·p·(q - onehot) with q = 0; without weight nothing is left."""
    out, grad, _ = unlikely(logits, backend)
    assert out.loss_instruction.item() == INF and out.logp.item() == 0
    torch.testing.assert_close(
        grad, torch.nn.functional.one_hot(torch.tensor([0]), logits.shape[1]).float()
    )
    out, grad, _ = unlikely(logits, backend, alpha=0.0)
    assert out.loss_instruction.item() == 0 and grad.eq(0).all()
    out, grad, _ = unlikely(logits, backend, token_weight=torch.zeros(1))
    assert torch.isfinite(out.loss) and grad.eq(0).all()


@pytest.mark.parametrize("logits", [(-INF, -INF), (0.0, INF), (0.0, math.nan), (math.nan, 0.0)])
@each_backend
def test_a_row_that_is_no_distribution_is_not_hidden(backend, logits):
    out, _, _ = likely(one_row(*logits), torch.tensor([0]), backend)
    assert out.loss.isnan()


@each_backend
def test_lambda_decides_in_the_log_domain(backend):
    """p⁻ and p⁺ are far below the smallest float, their ratio is e²."""
    contexts = ("logits", "logits_authentic", "logits_fake")
    logits = dict(zip(contexts, (one_row(0.0, 0.0), one_row(-998.0, 0.0), one_row(-1000.0, 0.0)), strict=True))
    arguments = on_device(backend, logits | {"labels": torch.tensor([0])})
    for lam, expected in ((math.exp(1.99), True), (math.exp(2.01), False)):
        objective = {"lam": lam, "alpha": 1.0, "gamma": 0.0}
        for out in (
            cut_token_loss(**arguments, backend=backend, **objective),
            cut_token_loss_reference(**arguments, **objective),
        ):
            assert out.inappropriate.item() is expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary", [2, 127, 32000])
@each_backend
def test_equal_probabilities_are_not_inappropriate_at_lambda_one(backend, vocabulary, dtype):
    """Equal rows give equal p to the last bit, in whichever context they stand."""
    data = on_device(backend, random_rows(8, vocabulary, dtype=dtype))
    data["logits_fake"] = data["logits_authentic"].clone()
    objective = {"alpha": 1.0, "gamma": 0.0, "backend": backend}
    assert not cut_token_loss(**data, lam=1.0, **objective).inappropriate.any()
    negative = data["is_negative"] & (data["labels"] != -100)
    assert torch.equal(cut_token_loss(**data, lam=1 - 1e-6, **objective).inappropriate, negative)
    data["logits_fake"], data["logits_authentic"] = None, data["logits"].clone()
    assert not cut_token_loss(**data, lam=1.0, **objective).inappropriate.any()


LOGIT = st.one_of(
    st.floats(-30, 30, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.sampled_from([0.0, 88.0, -104.0, 1e4, -INF]),
)


def never_nan(backend: str, contrast: str, data, vocabulary: int, rows: int) -> None:
    """Any logits that are finite or masked: no NaN, gradients finite and bounded by the row's weight."""
    row = st.lists(LOGIT, min_size=vocabulary, max_size=vocabulary)
    row = row.filter(lambda values: max(values) > -INF)
    contexts = [torch.tensor(data.draw(st.lists(row, min_size=rows, max_size=rows))) for _ in range(3)]
    labels = torch.tensor(data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=rows, max_size=rows)))
    alpha, gamma, lam = (data.draw(st.floats(low, high)) for low, high in ((0, 4), (0, 4), (0.01, 3)))
    out, *gradients = evaluate(
        cut_token_loss,
        logits=contexts[0],
        logits_authentic=contexts[1],
        logits_fake=contexts[2] if contrast == "fake" else None,
        labels=labels,
        lam=lam,
        alpha=alpha,
        gamma=gamma,
        backend=backend,
    )
    for field in ("loss", *FIELDS):
        assert not getattr(out, field).isnan().any(), field
    for gradient, bound in zip(gradients, (max(1.0, alpha), 1.0), strict=True):
        assert gradient.abs().max() <= bound * (1 + 1e-6)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), vocabulary=st.integers(1, 6), rows=st.integers(1, 4))
@pytest.mark.parametrize("contrast", ["fake", "instruction"])
def test_nothing_is_ever_nan(contrast, data, vocabulary, rows):
    never_nan("torch", contrast, data, vocabulary, rows)


@settings(max_examples=25, deadline=None)  # the interpreter takes 40 ms a row
@given(data=st.data(), vocabulary=st.integers(1, 6), rows=st.integers(1, 2))
@pytest.mark.parametrize("contrast", ["fake", "instruction"])
def test_nothing_is_ever_nan_in_the_kernel(contrast, data, vocabulary, rows):
    never_nan("triton", contrast, data, vocabulary, rows)
