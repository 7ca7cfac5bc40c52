"""suite=kernel: loss and gradients from logits, three contexts of R rows and V tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from cut_dist.benchmark.config import BenchmarkJobConfig
from cut_dist.benchmark.formula import released_formula
from cut_dist.benchmark.peers import liger_cross_entropy, triton_peer, whole_from_logp
from cut_dist.benchmark.rows import Rows, expected, logit_rows
from cut_dist.benchmark.timing import OURS, WHOLE, Case, Contender, Floor, SizedCase
from cut_dist.kernels.cut_loss import cut_token_loss, cut_token_loss_reference

SIZES = {"cpu": (256, (32000,)), "cuda": (4096, (32000, 128256))}  # rows, vocabularies
ROWS_MOVED = 5  # each of three contexts read once, two gradients written once

# of ‖x − expected‖/‖expected‖; bf16 keeps 8 bits of each gradient
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 1e-2}


def cases(cfg: BenchmarkJobConfig, device: torch.device, dtype: torch.dtype) -> Iterator[SizedCase]:
    """One case for each vocabulary, made when its turn comes."""
    default_rows, default_vocab = SIZES[device.type]
    rows = cfg.kernel.rows or default_rows
    for vocab in cfg.kernel.vocab or default_vocab:
        yield f"V = {vocab}", partial(kernel_case, rows, vocab, cfg, device, dtype)


def kernel_case(rows: int, vocab: int, cfg: BenchmarkJobConfig, device: torch.device, dtype: torch.dtype) -> Case:
    data = logit_rows(rows, vocab, dtype, device, cfg.objective, cfg.seed)
    row_bytes = rows * vocab * dtype.itemsize
    source, target = data.fake, torch.empty_like(data.fake)
    return Case(
        suite="kernel",
        title=f"From logits: R = {rows}, V = {vocab}, {str(dtype).removeprefix('torch.')}",
        shape={"rows": rows, "vocab": vocab},
        floor=Floor("copy", "B/s", lambda: target.copy_(source), 2.0 * row_bytes),
        contenders=contenders(data, lambda _: float(ROWS_MOVED * row_bytes)),
        expected={WHOLE: expected(data)},
        tolerance=TOLERANCES[dtype],
        details={"floor": f"{ROWS_MOVED} rows of V moved: three read, two written"},
    )


def contenders(data: Rows, work: Callable[[int], float]) -> list[Contender]:
    device = data.labels.device
    backends = ("triton", "torch") if device.type == "cuda" else ("torch",)
    scratch = [x.detach().clone() for x in (data.instruction, data.authentic)]

    def restore(_: int) -> None:
        for copy, x in zip(scratch, (data.instruction, data.authentic)):
            copy.copy_(x.detach())

    formula = (data.instruction, data.authentic, data.fake, data.labels, data.token_weight, data.objective)
    return [
        Contender("released formula", lambda _: data.gradients(released_formula(*formula)), work=work),
        # First of ours, to which the others are held: as the fused head calls it. With the logits kept, a GPU writes
        # the gradients once more, times the upstream factor, which the host does not know.
        Contender(f"{OURS}, in place", _ours_in_place(data, scratch), work=work, prepare=restore),
        *(Contender(f"{OURS}, {name}", _ours(data, name), work=work) for name in backends),
        Contender("log-softmax, autograd", lambda _: whole_from_logp(data, _log_softmax), work=work),
        Contender("reference, autograd", _reference(data, compiled=False), work=work),
        Contender("reference, compiled", _reference(data, compiled=True), work=work),
        triton_peer(
            "2 × Liger CE", lambda: liger_cross_entropy(data, scratch), device, work=work, prepare=restore
        ),
    ]


def _log_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.float().log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)


def _ours(data: Rows, backend: str) -> Callable[[int], tuple[Tensor, ...]]:
    def run(_: int) -> tuple[Tensor, ...]:
        contexts = (data.instruction, data.authentic, data.fake)
        out = cut_token_loss(
            *contexts, data.labels, token_weight=data.token_weight, backend=backend, **data.hyperparameters
        )
        return data.gradients(out.loss)

    return run


def _ours_in_place(data: Rows, scratch: list[Tensor]) -> Callable[[int], tuple[Tensor, ...]]:
    """As the fused head calls it: the gradients take the place of the logits."""

    def run(_: int) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in scratch]
        weights = {"token_weight": data.token_weight, **data.hyperparameters}
        out = cut_token_loss(*leaves, data.fake, data.labels, inplace=True, **weights)
        return out.loss.detach(), *torch.autograd.grad(out.loss, leaves)

    return run


def _reference(data: Rows, *, compiled: bool) -> Callable[[int], tuple[Tensor, ...]]:
    function = torch.compile(cut_token_loss_reference) if compiled else cut_token_loss_reference

    def run(_: int) -> tuple[Tensor, ...]:
        contexts = (data.instruction, data.authentic, data.fake)
        out = function(*contexts, data.labels, token_weight=data.token_weight, **data.hyperparameters)
        return data.gradients(out.loss)

    return run
