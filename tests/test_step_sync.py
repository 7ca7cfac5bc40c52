"""A step asks its device for nothing: the host runs ahead of it until the step's sums are read for the log."""

from __future__ import annotations

from functools import partial

import pytest
import rank_equality as worker
import torch

from cut_dist.data.packing import PackedBatch
from cut_dist.engine.launch import Ranks
from cut_dist.kernels.cut_loss import CutTokenLoss
from cut_dist.model import head
from cut_dist.model.attention import choose_backend
from cut_dist.model.load import load_causal_lm
from cut_dist.throughput import model_shape
from cut_dist.train import accumulate, pack_batch


class PlainEngine:
    """The part of DeepSpeed's engine that `accumulate` uses, on one rank and without DeepSpeed's own waits."""

    optimizer = None

    def __init__(self, module: head.CutModel, device: torch.device):
        self.module, self.device = module, device

    def __call__(self, batch: PackedBatch) -> CutTokenLoss:
        return self.module(batch)

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        pass

    def backward(self, loss: torch.Tensor, scale_wrt_gas: bool) -> None:
        loss.backward()


def run_step(device: torch.device, dtype: torch.dtype, checkpointing: str) -> torch.Tensor:
    cfg = worker.make_config(0, "fake", 200, "example_mean", checkpointing=checkpointing)
    ranks = Ranks(0, 1, device)
    causal_lm = load_causal_lm(cfg.model, dtype=dtype, seed=0).to(device)
    attention = choose_backend("auto", device, dtype)
    model = head.CutModel(causal_lm, lam=1.05, alpha=0.7, gamma=0.5, attention=attention)
    engine, shape = PlainEngine(model, device), model_shape(causal_lm.config)
    accumulate(engine, pack_batch(worker.make_examples(), cfg, ranks), cfg, ranks, shape)  # compiles, fills caches
    micro_batches = pack_batch(worker.make_examples(seed=1), cfg, ranks)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        return accumulate(engine, micro_batches, cfg, ranks, shape)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_never_waits_for_the_gpu(dtype, checkpointing):
    assert torch.isfinite(run_step(torch.device("cuda"), dtype, checkpointing)).all()


@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_a_step_needs_no_value_from_the_device(checkpointing, monkeypatch):
    """On tensors without values, whose `item`, `tolist` and boolean indexing are errors: what a GPU would wait for.

    Copies from pageable memory wait too, and pass here.
    """
    monkeypatch.setattr(PackedBatch, "pinned", lambda self: self)
    monkeypatch.setattr(head, "fused_linear_cut", partial(head.fused_linear_cut, backend="torch"))
    assert run_step(torch.device("meta"), torch.float32, checkpointing).is_meta
