"""The objective in plain PyTorch: as the released code computes it, and out of log-probabilities that others make.

Written anew after what that code does (wwxu21/CUT, modeling_llama_unlikelihood.py): a float32 softmax of all logits,
the likelihood from the logarithm of the whole matrix, the unlikelihood from the probabilities that were picked, with
exact zeros raised to 1e-5 before the logarithm. That code has α alone for a weight; α·p(y|x,j⁻)^γ is the same at γ = 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cut_dist.config import ObjectiveConfig


def released_formula(
    logits: Tensor,
    logits_authentic: Tensor,
    logits_fake: Tensor,
    labels: Tensor,
    token_weight: Tensor,
    objective: ObjectiveConfig,
) -> Tensor:
    """The loss of Align-N rows from the logits (R, V) of three contexts, under autograd."""
    column = labels.unsqueeze(1)
    p, p_authentic = (torch.softmax(x.float(), dim=1) for x in (logits, logits_authentic))
    with torch.no_grad():
        p_fake = torch.softmax(logits_fake.float(), dim=1)
    likelihood = F.nll_loss(torch.log(p_authentic), labels, reduction="none")
    picked = (x.gather(1, column).squeeze(1) for x in (p, p_authentic, p_fake))
    return (token_weight * (released_token_loss(*picked, objective) + likelihood)).sum()


def released_token_loss(p: Tensor, p_authentic: Tensor, p_contrast: Tensor, objective: ObjectiveConfig) -> Tensor:
    """(n,) likelihood or unlikelihood of Align-N tokens from the probabilities (n,) that the contexts give them."""
    inappropriate = (p_authentic / p_contrast).detach() > objective.lam
    wanted = torch.where(inappropriate, 1 - p, p)
    wanted = torch.where(wanted == 0, wanted + 1e-5, wanted)
    weight = torch.where(inappropriate, objective.alpha * p_authentic.detach() ** objective.gamma, 1.0)
    return -weight * torch.log(wanted)


def composed(
    logp: Tensor, logp_authentic: Tensor, logp_fake: Tensor, token_weight: Tensor, objective: ObjectiveConfig
) -> Tensor:
    """The loss of Align-N rows from log-probabilities (R,), differentiable in the first two.

    What has to be written around a library that gives one cross entropy a row.
    """
    inappropriate = logp_authentic.detach() - logp_fake.detach() > math.log(objective.lam)
    weight = objective.alpha * torch.exp(objective.gamma * logp_authentic.detach())
    unlikelihood = -weight * torch.log1p(-torch.exp(logp.where(inappropriate, -1.0)))
    loss = torch.where(inappropriate, unlikelihood, -logp) - logp_authentic
    return (token_weight * loss).sum()
