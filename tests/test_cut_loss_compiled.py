"""cut_token_loss under torch.compile: one graph, forward and backward, equal to what runs without."""

from __future__ import annotations

import pytest
import torch
from cut_cases import OBJECTIVE, TRITON_DEVICE, assert_same, each_backend, evaluate, on_device, random_rows
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from cut_dist.kernels.backends import _operation
from cut_dist.kernels.cut_loss import cut_token_loss

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("contrast", ["fake", "instruction"])
@each_backend
def test_compiled_equals_eager(backend, contrast, inplace):
    data = random_rows(12, 300, dtype=torch.float32)
    if contrast == "instruction":
        data["logits_fake"] = None

    def head(logits, logits_authentic, **rest):  # logits are owned by the graph, as in a model
        return cut_token_loss(logits * 1, logits_authentic * 1, **rest, backend=backend, inplace=inplace)

    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    place = on_device(backend, data)
    expected = evaluate(head, **place, **OBJECTIVE, upstream=1.5)
    assert_same(evaluate(compiled, **place, **OBJECTIVE, upstream=1.5), expected, rtol=1e-6, atol=1e-8)


def test_the_default_compiler_takes_it():
    data = random_rows(12, 300, dtype=torch.float32)
    compiled = torch.compile(cut_token_loss, fullgraph=True)
    expected = evaluate(cut_token_loss, **data, **OBJECTIVE)
    assert_same(evaluate(compiled, **data, **OBJECTIVE), expected, rtol=1e-6, atol=1e-8)


def test_another_objective_is_not_compiled_anew():
    """Dynamo makes a number variable once it has changed, and compiles a second time then; never again."""
    data = random_rows(12, 300, dtype=torch.float32)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(cut_token_loss, fullgraph=True, backend=counter)
    names = ("lam", "alpha", "gamma", "lam_instruction", "floor")
    for values in (
        (1.1, 0.5, 0.5, 0.9, 0.01), (1.2, 0.7, 0.1, 1.1, 0.02), (1.0, 1.0, 0.0, 0.7, 0.0), (0.5, 0.3, 2.0, 1.3, 0.3),
        (0.0, 16.0, 1.5, 0.1, 1.0),
    ):  # fmt: skip
        objective = dict(zip(names, values, strict=True))
        expected = evaluate(cut_token_loss, **data, **objective)
        assert_same(evaluate(compiled, **data, **objective), expected, rtol=1e-6, atol=1e-8)
    assert counter.frame_count == 2


def test_compiled_without_gradients():
    data = random_rows(12, 300, dtype=torch.float32)
    with torch.no_grad():
        loss = torch.compile(cut_token_loss, fullgraph=True, backend="aot_eager")(**data, **OBJECTIVE).loss
    torch.testing.assert_close(loss, cut_token_loss(**data, **OBJECTIVE).loss)


def test_the_operation_is_what_it_is_registered_as():
    """PyTorch's own checks: the schema, what it writes to, and its fake implementation."""
    data = random_rows(12, 30, dtype=torch.float32)
    logits, authentic, *rest = data.values()
    objective = torch.tensor([1.1, 0.5, 0.5, 1.0, 0.1], dtype=torch.float64)
    for backend, buffers in (("torch", (torch.empty(12, 30), torch.empty(12, 30))), ("triton", (None, None))):
        arguments = (backend, logits, authentic, *rest, objective, *buffers)
        tests = ("test_schema", "test_faketensor")
        torch.library.opcheck(_operation, arguments, test_utils=tests)


@each_backend
def test_under_checkpointing_and_autocast(backend):
    data = on_device(backend, random_rows(12, 300, dtype=torch.float32))
    expected = evaluate(cut_token_loss, **data, **OBJECTIVE, backend=backend)

    def recomputed(**kwargs):
        with torch.autocast(TRITON_DEVICE, dtype=torch.bfloat16):
            return checkpoint(cut_token_loss, use_reentrant=False, **kwargs)

    assert_same(evaluate(recomputed, **data, **OBJECTIVE, backend=backend), expected, rtol=0, atol=0)
