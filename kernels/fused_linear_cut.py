"""The CUT loss from hidden states and the lm_head weight, a chunk of rows at a time.

The logits Z = X·Wᵀ of all rows are never held at once. For each chunk they are made, turned in place into
their gradient G by the row function behind `cut_token_loss`, and spent: dX = G·W, dW += Gᵀ·X. All of it
happens in the forward; nothing of size V is kept for the backward but dW.

Shapes: R rows (response tokens), of which the first R_neg are of Align-N examples; D hidden size; V
vocabulary; n rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cut_dist.kernels.arguments import check_hidden, check_hyperparameters, check_labels, check_token_weight
from cut_dist.kernels.cut_loss import CutTokenLoss, select_backend, weighted_sum
from cut_dist.kernels.cut_loss_torch import CutRows
from cut_dist.kernels.forward_gradient import attach_gradients, gradient_due

# One context's logits of a chunk, in the input dtype; a chunk of Align-N rows holds up to three of them.
# Large enough for the products to run at full speed, and for dW to be read and written few times.
_CHUNK_BYTES = 128 * 2**20


def fused_linear_cut(
    hidden: Tensor,
    hidden_authentic: Tensor | None,
    hidden_fake: Tensor | None,
    weight: Tensor,
    labels: Tensor,
    *,
    lam: float,
    alpha: float,
    gamma: float,
    token_weight: Tensor | None = None,
    chunk_rows: int | None = None,
    backend: str = "auto",
) -> CutTokenLoss:
    """Computes the CUT loss of response tokens from hidden states without ever holding the logits of all
    rows.

    Align-N rows come first: the first R_neg = hidden_authentic.shape[0] rows of `hidden` and `labels` are
    those of Align-N examples, aligned with the rows of `hidden_authentic` and `hidden_fake`; the rows after
    them are Align-P, which have no other context. (So there are no dummy rows, and no count to fetch from the
    device.)

    Products are made in the dtype of the inputs, losses and logit gradients in float32 (float64 for float64),
    and the weight's gradient is accumulated over the chunks in float32.

    Args:
        hidden: (R, D) last hidden states of the instruction context, at the positions that predict the
            labels.
        hidden_authentic: (R_neg, D) those of the context with the authentic judgment. None: every row is
            Align-P.
        hidden_fake: (R_neg, D) those of the context with the fake positive judgment, never differentiated.
            None: the instruction context is the contrast.
        weight: (V, D) lm_head weight.
        labels: (R,) int64; −100 marks a row to ignore.
        lam: λ > 0 of the test for inappropriate tokens.
        alpha: α ≥ 0, weight of unlikelihood.
        gamma: γ ≥ 0, exponent of the dynamic weight.
        token_weight: (R,) factor of each row's loss and gradient, such as 1/(tokens·examples). None: 1.
        chunk_rows: rows whose logits are held at once. None: as many as fit in 128 MiB a context.
        backend: as for `cut_token_loss`.

    Returns:
        A `CutTokenLoss` of (R,) fields; its `loss` is differentiable in `hidden`, `hidden_authentic`,
        `weight`.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range; the message names it.
    """
    check_hidden(hidden, hidden_authentic, hidden_fake, weight)
    check_labels(labels, hidden, vocabulary=weight.shape[0])
    check_token_weight(token_weight, labels)
    check_hyperparameters(lam, alpha, gamma)
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1, or None, got {chunk_rows}.")
    compute = partial(select_backend(backend), lam=lam, alpha=alpha, gamma=gamma)
    chunk_rows = chunk_rows or max(1, _CHUNK_BYTES // (weight.shape[0] * weight.element_size()))
    rows_negative = 0 if hidden_authentic is None else hidden_authentic.shape[0]

    gradients = _Gradients(
        _zeros_if_due(hidden, hidden.dtype),
        _zeros_if_due(hidden_authentic, hidden.dtype),
        _zeros_if_due(weight, torch.promote_types(weight.dtype, torch.float32)),
    )
    chunks = []
    with torch.no_grad(), _autocast_off(weight.device.type):
        for rows in _chunk_slices(rows_negative, hidden.shape[0], chunk_rows):
            negative = rows.stop <= rows_negative
            contexts = (hidden, hidden_authentic, hidden_fake) if negative else (hidden, None, None)
            x, x_authentic, x_fake = (None if context is None else context[rows] for context in contexts)
            y, y_weight = labels[rows], None if token_weight is None else token_weight[rows]
            chunks.append(
                _cut_chunk(compute, x, x_authentic, x_fake, weight, y, y_weight, gradients.of(rows))
            )
        result = CutRows(*(torch.cat(field) for field in zip(*chunks, strict=True)))
        loss = weighted_sum(result, token_weight)
    pairs = zip((hidden, hidden_authentic, weight), gradients, strict=True)
    return CutTokenLoss(attach_gradients(loss, list(pairs)), *result)


class _Gradients(NamedTuple):
    """Where chunks leave their gradients; None where none is due."""

    hidden: Tensor | None
    authentic: Tensor | None
    weight: Tensor | None

    def of(self, rows: slice) -> _Gradients:
        """Those of a chunk."""
        hidden, authentic = (None if x is None else x[rows] for x in (self.hidden, self.authentic))
        return _Gradients(hidden, authentic, self.weight)


def _cut_chunk(
    compute: Callable[..., CutRows],
    x: Tensor,
    x_authentic: Tensor | None,
    x_fake: Tensor | None,
    weight: Tensor,
    labels: Tensor,
    token_weight: Tensor | None,
    gradients: _Gradients,
) -> CutRows:
    """Losses and gradients of one chunk, of Align-P rows if there is no authentic context."""
    logits, logits_authentic, logits_fake = (
        None if context is None else context @ weight.T for context in (x, x_authentic, x_fake)
    )
    grad = None if gradients.hidden is None and gradients.weight is None else logits
    grad_authentic = None if gradients.authentic is None and gradients.weight is None else logits_authentic
    result = compute(
        logits, logits_authentic, logits_fake, labels, None, token_weight,
        grad=grad, grad_authentic=grad_authentic,
    )  # fmt: skip
    if grad is not None:
        _spend(grad, x, weight, gradients.hidden, gradients.weight)
    if grad_authentic is not None:
        _spend(grad_authentic, x_authentic, weight, gradients.authentic, gradients.weight)
    return result


def _spend(
    grad_logits: Tensor, x: Tensor, weight: Tensor, grad_x: Tensor | None, grad_weight: Tensor | None
) -> None:
    """Carries a chunk's logit gradients (n, V) on to its hidden states x (n, D) and to the weight."""
    if grad_x is not None:
        torch.mm(grad_logits, weight, out=grad_x)
    if grad_weight is None:
        return
    if grad_weight.dtype == x.dtype:
        grad_weight.addmm_(grad_logits.T, x)
    else:
        grad_weight.add_(grad_logits.T @ x)


def _autocast_off(device_type: str) -> AbstractContextManager:
    """The products keep the dtype of their operands, which in-place accumulation relies on."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def _zeros_if_due(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if not gradient_due(tensor):
        return None
    return torch.zeros_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)


def _chunk_slices(rows_negative: int, rows_total: int, chunk_rows: int) -> Iterator[slice]:
    """Nearly equal slices, none across the border of Align-N and Align-P; an empty one for no rows."""
    for start, count in ((0, rows_negative), (rows_negative, rows_total - rows_negative)):
        pieces = -(-count // chunk_rows)
        for i in range(pieces):
            yield slice(start + count * i // pieces, start + count * (i + 1) // pieces)
    if rows_total == 0:
        yield slice(0, 0)
