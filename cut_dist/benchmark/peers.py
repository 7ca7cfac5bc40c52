"""Other libraries as contenders: each is optional, imported when its turn comes, and named where it is missing.

Read against liger-kernel 0.8, cut-cross-entropy 25.1, trl 1.16 and torch 2.13. All but torch's and TRL's are Triton
kernels, which run on CUDA only. None of them has the objective; `formula.composed` is written around those that give
one differentiable number a row, and what the others leave out is in `computes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cut_dist.benchmark.formula import composed
from cut_dist.benchmark.rows import Rows
from cut_dist.benchmark.timing import Contender

_TRL_VOCAB_CHUNK = 32768  # TRL's own choice of vocabulary tile

# (hidden states or logits, labels) → (R,) log-probabilities of the labels
LogP = Callable[[Tensor, Tensor], Tensor]


def peer(name: str, build: Callable[[], Callable[[int], Any]], **attributes: Any) -> Contender:
    """The contender that `build` imports and makes, or one that says why there is none."""
    try:
        return Contender(name, build(), **attributes)
    except ModuleNotFoundError as error:
        missing = f"no module {error.name}"
    except Exception as error:  # of a library that meets versions it was not made for; ours go on without it
        missing = f"can't be imported: {type(error).__name__}: {error}"[:200]
    return Contender(name, missing=missing, **attributes)


def triton_peer(
    name: str, build: Callable[[], Callable[[int], Any]], device: torch.device, **attributes: Any
) -> Contender:
    """`peer` for a library that has Triton kernels and nothing else."""
    if device.type != "cuda":
        return Contender(name, missing="needs CUDA", **attributes)
    return peer(name, build, **attributes)


def whole_from_logp(rows: Rows, logp: LogP) -> tuple[Tensor, ...]:
    """Loss and gradients of the objective, composed around a library's log-probabilities."""
    with torch.no_grad():
        logp_fake = logp(rows.fake, rows.labels)
    each = (logp(x, rows.labels).float() for x in (rows.instruction, rows.authentic))
    return rows.gradients(composed(*each, logp_fake.float(), rows.token_weight, rows.objective))


def likelihoods(rows: Rows, mean_loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
    """Loss and gradients of the two likelihoods, for libraries that only give a mean over rows."""
    return rows.gradients(mean_loss(rows.instruction, rows.labels) + mean_loss(rows.authentic, rows.labels))


def liger_cross_entropy(rows: Rows, scratch: list[Tensor]) -> Callable[[int], Any]:
    """Two cross entropies of Liger's and a selective log-softmax; they overwrite the logits, hence `scratch`."""
    from liger_kernel.transformers.functional import liger_cross_entropy as cross_entropy

    def run(_: int) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in scratch]
        with torch.no_grad():
            picked = rows.fake.gather(1, rows.labels.unsqueeze(1)).squeeze(1).float()
            logp_fake = picked - torch.logsumexp(rows.fake.float(), dim=1)
        logp, logp_authentic = (-cross_entropy(x, rows.labels, reduction="none").float() for x in leaves)
        loss = composed(logp, logp_authentic, logp_fake, rows.token_weight, rows.objective)
        return loss.detach(), *torch.autograd.grad(loss, leaves)

    return run


def cut_cross_entropy(rows: Rows) -> Callable[[int], Any]:
    """Apple's cut-cross-entropy, no relation, with its gradient filter off: that would drop unlikelihood."""
    from cut_cross_entropy import linear_cross_entropy

    def logp(hidden: Tensor, labels: Tensor) -> Tensor:
        return -linear_cross_entropy(hidden, rows.weight, labels, reduction="none", filter_eps=None)

    return lambda _: whole_from_logp(rows, logp)


def trl_chunked(rows: Rows) -> Callable[[int], Any]:
    """TRL's chunked log-probabilities, which its trainers' losses are made of."""
    from trl.kernels import ChunkedLogProbFunction

    def logp(hidden: Tensor, labels: Tensor) -> Tensor:
        return ChunkedLogProbFunction.apply(hidden, rows.weight, None, labels, 1.0, _TRL_VOCAB_CHUNK, None, 1.0, ())[0]

    return lambda _: whole_from_logp(rows, logp)


def liger_fused_linear(rows: Rows) -> Callable[[int], Any]:
    """Liger's fused linear cross entropy, whose gradient is made for a mean: the two likelihoods, no more."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    def mean_loss(hidden: Tensor, labels: Tensor) -> Tensor:
        return liger_fused_linear_cross_entropy(hidden, rows.weight, labels, accum_dtype=torch.float32)

    return lambda _: likelihoods(rows, mean_loss)


def torch_linear_cross_entropy(rows: Rows) -> Callable[[int], Any]:
    """PyTorch's own chunked linear cross entropy (2.13), whose gradient is made for a mean too."""
    from torch.nn import LinearCrossEntropyOptions
    from torch.nn.functional import linear_cross_entropy

    def mean_loss(hidden: Tensor, labels: Tensor) -> Tensor:
        return linear_cross_entropy(hidden, rows.weight, labels, options=LinearCrossEntropyOptions())

    return lambda _: likelihoods(rows, mean_loss)
