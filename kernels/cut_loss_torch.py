"""The objective's rows in plain PyTorch: losses and logit gradients in few passes, little memory, no lost
digits.

Every row is seen through its *margin* d, by how much the other tokens together lead the label y:

    d = log Σ_{v≠y} e^{z_v} − z_y,   p = sigmoid(−d),   1 − p = sigmoid(d),   q_v = e^{z_v} / Σ_{u≠y} e^{z_u}

    likelihood    −log p            ∂/∂z_v = c·q_v,   ∂/∂z_y = −c   with c = 1 − p
    unlikelihood  −w·log(1 − p)     ∂/∂z_v = c·q_v,   ∂/∂z_y = −c   with c = −w·p

So a gradient row is one scalar times (q − onehot(y)): bounded at any p, never divided by 1 − p, never a
difference of near-equal numbers. With sums S = Σ_v e^{z_v−m} and S₋y over v ≠ y it is S₋y/S = sigmoid(d);
here m is the largest of the *other* logits, so S₋y ≥ 1 and log(1 − p) keeps all its digits even
where p rounds to 1.

Shapes: R rows (response tokens), V tokens in the vocabulary, n rows of one block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cut_dist.kernels.arguments import IGNORE_INDEX, CutRows, Objective, Rows

# Rows are taken in blocks whose float32 copy has this many bytes. On a CPU a block then stays in the cache
# through its passes; an accelerator needs larger ones to hide the launches.
_BLOCK_BYTES_CPU = 4 * 2**20
_BLOCK_BYTES_ACCELERATOR = 64 * 2**20


def cut_rows(
    rows: Rows, objective: Objective, grad: Tensor | None = None, grad_authentic: Tensor | None = None
) -> CutRows:
    """Computes the losses of all rows and the gradients of their weighted sum with respect to the logits.

    Arguments are checked already, and autograd is off.

    Args:
        rows: the logits and what belongs to them.
        objective: λ, α, γ, λ₂ and σ.
        grad: (R, V), overwritten with the gradient for `rows.logits`; may be those logits themselves. None: no
            gradient work.
        grad_authentic: the same for `rows.logits_authentic`.

    Returns:
        The rows' losses (not weighted by `token_weight`) and log-probabilities; 0 where a row has no such
        thing.
    """
    blocks = []
    for block in _block_slices(rows.logits):
        parts = [None if tensor is None else tensor[block] for tensor in (*rows, grad, grad_authentic)]
        blocks.append(_cut_block(Rows(*parts[:-2]), objective, *parts[-2:]))
    return CutRows(*(torch.cat(field) for field in zip(*blocks, strict=True)))


def _cut_block(rows: Rows, objective: Objective, grad: Tensor | None, grad_authentic: Tensor | None) -> CutRows:
    logits, logits_authentic, logits_fake, labels, is_negative, token_weight = rows
    valid = labels != IGNORE_INDEX
    negative = valid if is_negative is None else valid & is_negative
    column = labels.where(valid, 0).unsqueeze(1)  # a label out of range stops `gather`
    instruction = _Others(logits, column, valid, grad)
    logp = instruction.logp(valid)
    zero = torch.zeros_like(logp)
    weight = zero + 1 if token_weight is None else token_weight.to(logp.dtype)
    likelihood = instruction.margin.sigmoid()  # 1 − p

    if logits_authentic is None or _known_empty(negative):
        instruction.write_gradient((likelihood * weight).where(valid, 0))
        if grad_authentic is not None:
            grad_authentic.zero_()
        return CutRows(-logp, zero, torch.zeros_like(valid), logp, zero, zero)

    authentic = _Others(logits_authentic, column, negative, grad_authentic)
    logp_authentic = authentic.logp(negative)
    if logits_fake is None:
        logp_fake = logp.where(negative, 0)
    else:
        logp_fake = _Others(logits_fake, column, negative, None).logp(negative)

    log_lam, log_lam_instruction, log_floor = objective.log_thresholds()
    inappropriate = negative & (logp_authentic - logp_fake > log_lam)  # paper eq. 5, in the log domain
    inappropriate &= ~((logp_authentic - logp <= log_lam_instruction) | (logp_authentic <= log_floor))  # DualCUT
    w = (objective.alpha * (objective.gamma * logp_authentic).exp()).where(inappropriate, 0)
    # log(1 − p) is −inf where no other token has any probability; w = 0 makes even that 0.
    unlikelihood = (-w * _log_sigmoid(instruction.margin)).where(w > 0, 0)

    coefficient = torch.where(inappropriate, -w * (-instruction.margin).sigmoid(), likelihood)
    instruction.write_gradient((coefficient * weight).where(valid, 0))
    authentic.write_gradient((authentic.margin.sigmoid() * weight).where(negative, 0))
    loss_instruction = torch.where(inappropriate, unlikelihood, -logp)  # paper eq. 6
    return CutRows(loss_instruction, -logp_authentic, inappropriate, logp, logp_authentic, logp_fake)


class _Others:
    """One context's block of rows, turned into the distribution q over the tokens other than the label.

    Attributes:
        margin: (n,) log Σ_{v≠y} e^{z_v} − z_y; −inf where only the label has any probability.
    """

    def __init__(self, logits: Tensor, column: Tensor, keep: Tensor, out: Tensor | None) -> None:
        self.column, self.out = column, out
        self.z = z = _workspace(logits, out)
        if not _known_full(keep):  # rows that are not used may hold anything, NaN included
            z.masked_fill_(~keep.unsqueeze(1), 0)

        z_label = z.gather(1, column)
        lowest = torch.finfo(z.dtype).min  # not −inf: the softmax of nothing but −inf is NaN
        z.scatter_(1, column, lowest)
        m = z.amax(1, keepdim=True)
        torch.softmax(z, 1, out=z)
        # softmax adds its V terms one after the other (error up to 5e-6 at V=32000), sum() in pairs (2e-7).
        # By what softmax has divided the row cancels in both uses of this sum.
        self.total = z.sum(1, keepdim=True)
        log_s = (self.total / z.amax(1, keepdim=True)).log()
        m.masked_fill_(m == lowest, -math.inf)
        self.margin = (m - z_label).add_(log_s).squeeze(1)

    def logp(self, keep: Tensor) -> Tensor:
        """(n,) log p of the label, 0 on rows not kept."""
        return _log_sigmoid(-self.margin).where(keep, 0)

    def write_gradient(self, coefficient: Tensor) -> None:
        """Writes coefficient·(q − onehot(label)), one coefficient a row, where a gradient was asked for."""
        if self.out is None:
            return
        coefficient = coefficient.unsqueeze(1)
        self.z.mul_(coefficient / self.total).scatter_(1, self.column, -coefficient)
        if self.z is not self.out:
            self.out.copy_(self.z)


def _log_sigmoid(x: Tensor) -> Tensor:
    # torch.nn.functional.logsigmoid starts all threads for any few rows (5 ms for 32 rows on a busy CPU).
    return x.clamp(max=0) - (-x.abs()).exp().log1p()


def _workspace(logits: Tensor, out: Tensor | None) -> Tensor:
    """The logits in the dtype of the arithmetic, to be overwritten: in `out` itself if it has that dtype."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if out is None or out.dtype != dtype:
        return logits.to(dtype, copy=True)
    return out if out.data_ptr() == logits.data_ptr() else out.copy_(logits)


def _block_slices(logits: Tensor) -> Iterator[slice]:
    """Slices over the rows; one empty slice if there are none."""
    count, vocabulary = logits.shape
    block_bytes = _BLOCK_BYTES_CPU if logits.device.type == "cpu" else _BLOCK_BYTES_ACCELERATOR
    size = max(1, block_bytes // (4 * vocabulary))
    return (slice(start, start + size) for start in range(0, max(count, 1), size))


# On an accelerator, looking at a mask would wait for the device: there nothing is known.


def _known_empty(mask: Tensor) -> bool:
    return mask.device.type == "cpu" and not bool(mask.any())


def _known_full(mask: Tensor) -> bool:
    return mask.device.type == "cpu" and bool(mask.all())
