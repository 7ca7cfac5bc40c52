"""What the CUT loss from hidden states holds in memory."""

from __future__ import annotations

import pytest
import torch
from cut_cases import OBJECTIVE
from head_cases import DIFFERENTIABLE, Largest, evaluate, from_whole_logits, random_inputs
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from cut_dist.kernels import cut_loss_torch
from cut_dist.kernels import fused_linear_cut as module
from cut_dist.kernels.fused_linear_cut import fused_linear_cut


class Peak(TorchDispatchMode):
    """Notes the most bytes that lay at one time in memory that was allocated since it was entered."""

    def __init__(self, *inputs: Tensor | None) -> None:
        super().__init__()
        self.known = {x.untyped_storage().data_ptr() for x in inputs if x is not None}
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                reference = StorageWeakRef(tensor.untyped_storage())
                self.live[reference.cdata] = (reference, tensor.untyped_storage().nbytes())
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self.live.values()))
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("contexts", [3, 2, 1])
def test_peak_memory_is_what_the_docstring_says(contexts, dtype, monkeypatch):
    rows, rows_negative, vocabulary, width, n = 300, 200, 5000, 64, 50
    monkeypatch.setattr(cut_loss_torch, "_BLOCK_BYTES_CPU", 4 * vocabulary)  # a row's workspace of that backend
    inputs = random_inputs(rows, rows_negative if contexts > 1 else None, vocabulary, width, dtype=dtype)
    if contexts < 3:
        inputs["hidden_fake"] = None
    leaves = {name: inputs[name].requires_grad_() for name in DIFFERENTIABLE if inputs[name] is not None}
    with Peak(*inputs.values()) as peak:
        fused_linear_cut(**inputs, **OBJECTIVE, chunk_rows=n)
    b = dtype.itemsize
    outputs = b * sum(leaf.numel() for name, leaf in leaves.items() if name != "weight")
    part = b * 4096 * width if dtype == torch.bfloat16 else 0
    said = 4 * vocabulary * width + b * contexts * n * vocabulary + b * (contexts + min(contexts, 2)) * n * width
    assert said < peak.bytes - outputs < said + part + 8 * 4 * vocabulary


@pytest.mark.gpu
def test_peak_memory_on_a_gpu():
    """No temporary of the weight's size (262 MB here) beside dW; cuBLAS may have a workspace."""
    vocabulary, width, n = 128256, 1024, 256
    inputs = random_inputs(600, 400, vocabulary, width, dtype=torch.bfloat16)
    inputs = {name: tensor.cuda() for name, tensor in inputs.items()}
    for name in DIFFERENTIABLE:
        inputs[name].requires_grad_()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = fused_linear_cut(**inputs, **OBJECTIVE, chunk_rows=n)
    said = 4 * vocabulary * width + 2 * 3 * n * vocabulary
    assert torch.cuda.max_memory_allocated() - before < said + 100 * 2**20
    assert out.loss.isfinite()


def test_never_holds_more_logits_than_one_chunk():
    rows, vocabulary, width, chunk_rows = 200, 301, 8, 16
    inputs = random_inputs(rows, 120, vocabulary, width, dtype=torch.float32)
    with Largest() as largest:
        evaluate(fused_linear_cut, inputs, chunk_rows=chunk_rows)
    assert largest.elements[vocabulary] <= 3 * chunk_rows * vocabulary
    assert largest.elements[width] <= vocabulary * width  # the weight and its gradient
    with Largest() as largest:  # the measurement sees what it should
        evaluate(from_whole_logits, inputs)
    assert largest.elements[vocabulary] == rows * vocabulary


def test_chunks_are_sized_by_bytes(monkeypatch):
    vocabulary = 301
    inputs = random_inputs(200, 120, vocabulary, 8, dtype=torch.float32)
    monkeypatch.setattr(module, "_CHUNK_BYTES_CPU", 10 * vocabulary * 4)
    with Largest() as largest:
        evaluate(fused_linear_cut, inputs)
    assert largest.elements[vocabulary] == 3 * 10 * vocabulary
    monkeypatch.setattr(module, "_CHUNK_BYTES_CPU", 1)  # a vocabulary larger than the budget: a row at a time
    assert evaluate(fused_linear_cut, inputs)[0].logp.shape == (200,)


def test_chunks_on_a_gpu_follow_its_free_memory():
    """Powers of two, a quarter of the free memory at the most, so that a few busy megabytes change nothing."""
    row = 3 * 128256 * 2
    assert module._rows_that_fit(80 * 2**30, row) == 2048
    assert module._rows_that_fit(4 * 2**30, row) == 1024
    assert module._rows_that_fit(4 * 2**30 - 50 * 2**20, row) == 1024
    assert module._rows_that_fit(2**30, row) == 256
    assert module._rows_that_fit(0, row) == 1
