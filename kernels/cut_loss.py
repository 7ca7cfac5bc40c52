"""Contrastive Unlikelihood Training's token loss on logits (paper eq. 5 to 8): public interface, reference.

Three contexts predict the same response tokens y: the instruction alone, with the authentic judgment j⁻, and
with a fake positive judgment j⁺. A token is inappropriate where p(y|x,j⁻) > λ·p(y|x,j⁺); such tokens are
unlearned:

    loss_instruction = −w·log(1 − p(y|x))  if inappropriate, w = α·p(y|x,j⁻)^γ,  else −log p(y|x)
    loss_authentic   = −log p(y|x,j⁻)
    loss             = Σ_r token_weight_r · (loss_instruction_r + loss_authentic_r)

Rows of Align-P examples, judged satisfactory, are plain likelihood: −log p(y|x) alone. The choice of
inappropriate tokens and w carry no gradient. DualCUT (arXiv 2412.20297) finds a token inappropriate only where also
p(y|x,j⁻) > λ₂·p(y|x) and p(y|x,j⁻) > σ.

Shapes: R rows (one per response token), V tokens in the vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cut_dist.kernels.arguments import IGNORE_INDEX, CutRows, Objective, Rows, check_objective, check_rows
from cut_dist.kernels.backends import select_backend
from cut_dist.kernels.forward_gradient import attach_gradients, gradient_due


class CutTokenLoss(NamedTuple):
    """The objective over R rows.

    A plain tuple of tensors, because ZeRO-3 finds the tensors to hook in tuples, lists and dicts only.

    Float fields are float32 (float64 for float64 input); all but `loss` are detached. Ignored rows (label −100) are 0
    and False everywhere.

    Attributes:
        loss: (), Σ_r token_weight_r · (loss_instruction_r + loss_authentic_r); the only one with a gradient.
        loss_instruction: (R,), likelihood or unlikelihood in the instruction context (paper eq. 6), unweighted.
        loss_authentic: (R,), likelihood in the authentic context (eq. 7), unweighted; 0 on Align-P rows, and where it
            has no loss.
        inappropriate: (R,) bool, eq. 5; False on Align-P rows.
        logp, logp_authentic, logp_fake: (R,), of the labels; the last two are 0 on Align-P rows. Where the instruction
            context is the contrast, `logp_fake` is its `logp`.
    """

    loss: Tensor
    loss_instruction: Tensor
    loss_authentic: Tensor
    inappropriate: Tensor
    logp: Tensor
    logp_authentic: Tensor
    logp_fake: Tensor


def cut_token_loss(
    logits: Tensor,
    logits_authentic: Tensor | None,
    logits_fake: Tensor | None,
    labels: Tensor,
    *,
    lam: float,
    alpha: float,
    gamma: float,
    lam_instruction: float | None = None,
    floor: float = 0.0,
    authentic_loss: bool = True,
    is_negative: Tensor | None = None,
    token_weight: Tensor | None = None,
    backend: str = "auto",
    inplace: bool = False,
) -> CutTokenLoss:
    """Computes the CUT loss of response tokens from logits, with the gradients formed in the forward.

    No epsilon and no clamp: losses and gradients keep their relative precision for every p, and gradients are
    finite for any logits that are finite or −inf (a masked token). Limits: a label whose logit is −inf has
    p = 0 and a likelihood loss of +inf. Where only the label has any probability (V = 1, or all others −inf)
    p = 1, an unlikelihood loss is +inf, and its gradient the limit −w·p·(q − onehot) with q = 0. A row wholly
    −inf is no distribution and gives NaN.

    Args:
        logits: (R, V) instruction context; float16, bfloat16, float32 (arithmetic in float32) or float64.
        logits_authentic: (R, V) context with the authentic judgment. None: every row is Align-P.
        logits_fake: (R, V) context with the fake positive judgment, never differentiated. None: the
            instruction context is the contrast.
        labels: (R,) int64; −100 marks a row to ignore.
        lam: λ ≥ 0 of the test for inappropriate tokens; with 0 all are that have any probability given j⁻.
        alpha: α ≥ 0, weight of unlikelihood.
        gamma: γ ≥ 0, exponent of the dynamic weight.
        lam_instruction: λ₂ of the second test, against the instruction context. None: no such test.
        floor: σ, from 0 to 1, that p(y|x,j⁻) of an inappropriate token is above. 0: any will do.
        authentic_loss: False: the authentic context is only read, for U and w. `loss_authentic` is then 0, and
            `logits_authentic` gets no gradient.
        is_negative: (R,) bool, False on rows of Align-P examples, whose authentic and fake logits are not
            used and may hold anything. None: all rows are Align-N.
        token_weight: (R,) factor of each row's loss and gradient, such as 1/(tokens·examples). None: 1. With float16
            logits it should hold the loss scale too: gradients are rounded to float16 before the upstream factor.
        backend: "triton" (CUDA; elsewhere for tests, under TRITON_INTERPRET=1), "torch" or "auto": triton where it can.
        inplace: overwrite `logits` and `logits_authentic` with their gradients instead of allocating those.
            For callers who own the logits and need them no more; such a loss allows a single backward. Without effect
            in a graph of torch.compile, which plans its memory itself.

    Returns:
        A `CutTokenLoss`; its `loss` is differentiable in `logits` and `logits_authentic`.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range; the message names it.
            Labels out of range are found on the CPU only: elsewhere the check would wait for the device. The Triton
            kernel makes their rows NaN.
    """
    rows = Rows(logits, logits_authentic, logits_fake, labels, is_negative, token_weight)
    objective = Objective.of(lam, alpha, gamma, lam_instruction, floor)
    check_rows(rows)
    check_objective(objective)
    cut_rows = select_backend(backend, logits)
    inplace = inplace and not torch.compiler.is_compiling()
    if inplace:
        _check_no_sharing(logits, logits_authentic, logits_fake)
    learned = (logits, logits_authentic if authentic_loss else None)
    grad, grad_authentic = (_gradient_buffer(x, inplace) for x in learned)
    with torch.no_grad():
        result = cut_rows(rows, objective, grad, grad_authentic)
        if inplace:  # a Triton kernel's writes go past autograd, which must refuse a backward that needs these logits
            torch.autograd.graph.increment_version([x for x in (grad, grad_authentic) if x is not None])
        result = result if authentic_loss else without_authentic_loss(result)
        loss = weighted_sum(result, token_weight)
    pairs = list(zip(learned, (grad, grad_authentic), strict=True))
    return CutTokenLoss(attach_gradients(loss, pairs, inplace=inplace), *result)


def cut_token_loss_reference(
    logits: Tensor,
    logits_authentic: Tensor | None,
    logits_fake: Tensor | None,
    labels: Tensor,
    *,
    lam: float,
    alpha: float,
    gamma: float,
    lam_instruction: float | None = None,
    floor: float = 0.0,
    authentic_loss: bool = True,
    is_negative: Tensor | None = None,
    token_weight: Tensor | None = None,
) -> CutTokenLoss:
    """The same in plain PyTorch under autograd: what every faster path is tested against."""
    check_rows(Rows(logits, logits_authentic, logits_fake, labels, is_negative, token_weight))
    objective = Objective.of(lam, alpha, gamma, lam_instruction, floor)
    check_objective(objective)
    log_lam, log_lam_instruction, log_floor = objective.log_thresholds()
    valid = labels != IGNORE_INDEX
    negative = torch.zeros_like(valid) if logits_authentic is None else valid
    negative = negative if is_negative is None else negative & is_negative
    logp, log_rest = _log_probabilities(logits, labels, valid)
    logp_authentic = logp_fake = torch.zeros_like(logp)
    if logits_authentic is not None:
        contrast = logits if logits_fake is None else logits_fake
        logp_authentic, _ = _log_probabilities(logits_authentic, labels, negative)
        logp_fake, _ = _log_probabilities(contrast.detach(), labels, negative)
    inappropriate = negative & (logp_authentic.detach() - logp_fake > log_lam)  # U, paper eq. 5
    doubted = (logp_authentic - logp <= log_lam_instruction) | (logp_authentic <= log_floor)  # DualCUT's further tests
    inappropriate = inappropriate & ~doubted
    w = alpha * (gamma * logp_authentic.detach()).exp()
    loss_instruction = torch.where(inappropriate, -w * log_rest, -logp)  # L1, eq. 6 (Align-P: L2)
    loss_authentic = -logp_authentic  # second half of L2, paper eq. 7
    rows = CutRows(loss_instruction, loss_authentic, inappropriate, logp, logp_authentic, logp_fake)
    rows = rows if authentic_loss else without_authentic_loss(rows)
    return CutTokenLoss(weighted_sum(rows, token_weight), *(field.detach() for field in rows))


def _log_probabilities(logits: Tensor, labels: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log(1 − p) of the labels, each (R,); 0 on rows not kept."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32)).where(keep.unsqueeze(1), 0)
    column = labels.where(keep, 0).unsqueeze(1)
    log_all, log_others = z.logsumexp(1), z.scatter(1, column, -math.inf).logsumexp(1)
    logp, log_rest = z.gather(1, column).squeeze(1) - log_all, log_others - log_all
    return logp.where(keep, 0), log_rest.where(keep, 0)


def without_authentic_loss(rows: CutRows) -> CutRows:
    """The rows where the authentic context has no likelihood to learn."""
    return rows._replace(loss_authentic=torch.zeros_like(rows.loss_authentic))


def weighted_sum(rows: CutRows, token_weight: Tensor | None) -> Tensor:
    """Σ token_weight·(loss_instruction + loss_authentic), where 0·inf, a row without weight, is 0."""
    total = rows.loss_instruction + rows.loss_authentic
    if token_weight is None:
        return total.sum()
    weight = token_weight.detach().to(total.dtype)
    return (total * weight).where((total != 0) & (weight != 0), 0).sum()


def _gradient_buffer(logits: Tensor | None, inplace: bool) -> Tensor | None:
    """Where the gradient for `logits` goes; None if none is due."""
    if not gradient_due(logits):
        return None
    return logits.detach() if inplace else torch.empty_like(logits, memory_format=torch.contiguous_format)


def _check_no_sharing(*contexts: Tensor | None) -> None:
    starts = [x.data_ptr() for x in contexts if x is not None and x.numel() > 0]
    if len(set(starts)) < len(starts):
        raise ValueError(
            "inplace=True would overwrite logits that serve as two contexts; use inplace=False, or None for "
            "logits_fake to contrast with the instruction context."
        )
