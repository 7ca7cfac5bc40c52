"""Made-up response rows on which every token's verdict is clear, and what the objective gives for them.

All rows are of Align-N, with three contexts. Labels are drawn where the authentic and the fake context differ most, up
on one row and down on the next, so that half of the tokens are inappropriate and rounding changes no verdict; then they
are made likely, so that unlikelihood has a gradient that a comparison can see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cut_dist.config import ObjectiveConfig
from cut_dist.kernels.cut_loss import cut_token_loss_reference

_SLICE = 256  # rows that the expected values are made of at a time


@dataclass(frozen=True)
class Rows:
    """R rows: logits (R, V) of the three contexts, or hidden states (R, D) and the weight (V, D) that gives logits.

    `token_weight` is 1/R everywhere, so that libraries which only take a mean can be compared.
    """

    instruction: Tensor
    authentic: Tensor
    fake: Tensor
    weight: Tensor | None
    labels: Tensor
    token_weight: Tensor
    objective: ObjectiveConfig

    @property
    def leaves(self) -> list[Tensor]:
        """The tensors that gradients are taken for."""
        return [x for x in (self.instruction, self.authentic, self.weight) if x is not None]

    @property
    def hyperparameters(self) -> dict[str, float]:
        o = self.objective
        return {"lam": o.lam, "alpha": o.alpha, "gamma": o.gamma}

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        """The loss and its gradients for the leaves: what a contender is compared by."""
        return loss.detach(), *torch.autograd.grad(loss, self.leaves)


def logit_rows(
    rows: int, vocab: int, dtype: torch.dtype, device: torch.device, objective: ObjectiveConfig, seed: int
) -> Rows:
    """Rows of logits: standard normal, but for the label's, which is log V higher."""
    generator = torch.Generator(device).manual_seed(seed)
    contexts = [torch.randn(rows, vocab, device=device, dtype=dtype, generator=generator) for _ in range(3)]
    labels = _clear_labels(contexts[1], contexts[2])
    for x in contexts:
        x[torch.arange(rows, device=device), labels] += math.log(vocab)
    return _rows(contexts, None, labels, objective)


def hidden_rows(
    rows: int,
    vocab: int,
    hidden: int,
    dtype: torch.dtype,
    device: torch.device,
    objective: ObjectiveConfig,
    seed: int,
) -> Rows:
    """Rows of hidden states whose logits are distributed as those of `logit_rows`."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype, generator=generator)

    weight = normal(vocab, hidden) / hidden**0.5
    contexts = [normal(rows, hidden) for _ in range(3)]
    labels = _clear_labels(contexts[1] @ weight.T, contexts[2] @ weight.T)
    contexts = [x + math.log(vocab) * weight[labels] for x in contexts]
    return _rows(contexts, weight, labels, objective)


def expected(rows: Rows, *, lam: float | None = None) -> tuple[Tensor, ...]:
    """The loss and its gradients by the project's reference, in float64 on the CPU and float32 elsewhere.

    Args:
        lam: another λ; one that no token passes leaves the two likelihoods.
    """
    wide = torch.float64 if rows.labels.device.type == "cpu" else torch.float32
    hyperparameters = rows.hyperparameters | ({} if lam is None else {"lam": lam})
    weight = None if rows.weight is None else rows.weight.detach().to(wide).requires_grad_()
    total, parts, grad_weight = 0.0, [], 0
    for part in torch.arange(rows.labels.shape[0], device=rows.labels.device).split(_SLICE):
        x = [c.detach()[part].to(wide) for c in (rows.instruction, rows.authentic, rows.fake)]
        leaves = [c.requires_grad_() for c in x[:2]]
        logits = x if weight is None else [c @ weight.T for c in x]
        out = cut_token_loss_reference(
            *logits, rows.labels[part], token_weight=rows.token_weight[part], **hyperparameters
        )
        gradients = torch.autograd.grad(out.loss, leaves if weight is None else [*leaves, weight])
        total += out.loss.detach()
        parts.append([g.float() for g in gradients[:2]])
        grad_weight = grad_weight + gradients[2] if weight is not None else None
    gradients = [torch.cat(each) for each in zip(*parts)]
    return total, *gradients, *([] if weight is None else [grad_weight])


def _clear_labels(authentic: Tensor, fake: Tensor) -> Tensor:
    difference = authentic - fake
    odd = torch.arange(difference.shape[0], device=difference.device) % 2 == 1
    return torch.where(odd, difference.argmax(1), difference.argmin(1))


def _rows(contexts: list[Tensor], weight: Tensor | None, labels: Tensor, objective: ObjectiveConfig) -> Rows:
    instruction, authentic, fake = contexts
    for leaf in (instruction, authentic, weight):
        if leaf is not None:
            leaf.requires_grad_()
    token_weight = torch.full(labels.shape, 1 / labels.shape[0], device=labels.device)
    return Rows(instruction, authentic, fake, weight, labels, token_weight, objective)
