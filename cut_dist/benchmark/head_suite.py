"""suite=head: loss and gradients from hidden states (R, D) of three contexts and the lm_head weight (V, D)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor

from cut_dist.benchmark import peers
from cut_dist.benchmark.config import BenchmarkJobConfig
from cut_dist.benchmark.formula import released_formula
from cut_dist.benchmark.rows import Rows, expected, hidden_rows
from cut_dist.benchmark.timing import LIKELIHOOD, OURS, WHOLE, Case, Contender, Floor, SizedCase
from cut_dist.kernels.cut_loss import cut_token_loss_reference
from cut_dist.kernels.fused_linear_cut import fused_linear_cut

SIZES = {  # rows, widths, vocabularies
    "cpu": (256, (1024,), (32000,)),
    "cuda": (4096, (4096, 5120), (32000, 128256)),
}
# FLOPs in units of R·V·D, 2 a product: logits of each context, then dX and dW of the two that have a gradient.
FLOPS = {WHOLE: 3 * 2 + 2 * 2 + 2 * 2, LIKELIHOOD: 2 * 2 + 2 * 2 + 2 * 2}

# of ‖x − expected‖/‖expected‖; logits near log V lose 3 % of p when they are rounded to bf16
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
NO_TOKEN = 1e30  # a λ that no ratio of probabilities passes, so that likelihood is all that remains


def cases(cfg: BenchmarkJobConfig, device: torch.device, dtype: torch.dtype) -> Iterator[SizedCase]:
    """One case for each pair of width and vocabulary, made when its turn comes."""
    default_rows, default_hidden, default_vocab = SIZES[device.type]
    rows = cfg.head.rows or default_rows
    for hidden, vocab in product(cfg.head.hidden or default_hidden, cfg.head.vocab or default_vocab):
        yield f"D = {hidden}, V = {vocab}", partial(head_case, rows, hidden, vocab, cfg, device, dtype)


def head_case(
    rows: int, hidden: int, vocab: int, cfg: BenchmarkJobConfig, device: torch.device, dtype: torch.dtype
) -> Case:
    data = hidden_rows(rows, vocab, hidden, dtype, device, cfg.objective, cfg.seed)
    unit = float(rows * vocab * hidden)
    x, weight = data.fake, data.weight.detach().T
    logits = torch.empty(rows, vocab, dtype=dtype, device=device)
    return Case(
        suite="head",
        title=f"From hidden states: R = {rows}, D = {hidden}, V = {vocab}, {str(dtype).removeprefix('torch.')}",
        shape={"rows": rows, "hidden": hidden, "vocab": vocab},
        floor=Floor("product", "FLOP/s", lambda: torch.mm(x, weight, out=logits), 2 * unit),
        contenders=contenders(data, unit),
        expected={WHOLE: expected(data), LIKELIHOOD: expected(data, lam=NO_TOKEN)},
        tolerance=TOLERANCES[dtype],
        details={"floor": f"{FLOPS[WHOLE]}·R·V·D at the rate of one product X·Wᵀ"},
    )


def contenders(data: Rows, unit: float) -> list[Contender]:
    device = data.labels.device
    whole = {"work": lambda _: FLOPS[WHOLE] * unit}
    likelihood = {"work": lambda _: FLOPS[LIKELIHOOD] * unit, "computes": LIKELIHOOD}
    return [
        Contender("products, released formula", lambda _: _released(data), **whole),
        Contender(f"{OURS}, fused", lambda _: _ours(data), **whole),
        Contender("products, reference, compiled", _compiled(data), **whole),
        peers.peer("TRL chunked", lambda: peers.trl_chunked(data), **whole),
        peers.triton_peer(
            "cut-cross-entropy, unfiltered", lambda: peers.cut_cross_entropy(data), device, **whole
        ),
        peers.triton_peer("Liger fused linear CE", lambda: peers.liger_fused_linear(data), device, **likelihood),
        peers.peer("F.linear_cross_entropy", lambda: peers.torch_linear_cross_entropy(data), **likelihood),
    ]


def _released(data: Rows) -> tuple[Tensor, ...]:
    logits = (x @ data.weight.T for x in (data.instruction, data.authentic))
    with torch.no_grad():
        logits_fake = data.fake @ data.weight.T
    return data.gradients(released_formula(*logits, logits_fake, data.labels, data.token_weight, data.objective))


def _ours(data: Rows) -> tuple[Tensor, ...]:
    contexts = (data.instruction, data.authentic, data.fake)
    out = fused_linear_cut(
        *contexts, data.weight, data.labels, token_weight=data.token_weight, **data.hyperparameters
    )
    return data.gradients(out.loss)


def _compiled(data: Rows) -> Callable[[int], tuple[Tensor, ...]]:
    @torch.compile
    def loss(instruction: Tensor, authentic: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
        logits = (instruction @ weight.T, authentic @ weight.T, fake @ weight.detach().T)
        keywords = {"token_weight": data.token_weight, **data.hyperparameters}
        return cut_token_loss_reference(*logits, data.labels, **keywords).loss

    return lambda _: data.gradients(loss(data.instruction, data.authentic, data.fake, data.weight))
