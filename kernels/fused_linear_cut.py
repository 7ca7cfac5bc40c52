"""The CUT loss from hidden states and the lm_head weight, a chunk of rows at a time.

The logits Z = X·Wᵀ of all rows are never held at once. For each chunk of n rows the contexts' hidden states are
stacked, (k·n, D) with k contexts, instruction and authentic first. One product makes their logits in a buffer that all
chunks share; the row function behind `cut_token_loss` turns the first 2n rows in place into their gradient G; and one
product each spends it: dX = G·W, dW += Gᵀ·X. All of it happens in the forward; nothing of size V is kept for the
backward but dW.

Memory beyond inputs and the gradients of hidden states, b the bytes of an element:

    4·V·D (dW in float32)  +  b·k·n·V (a chunk's logits)  +  b·(k + min(k, 2))·n·D (its hidden states, their gradients)

with V rounded up to a multiple of 16 in the logits, and b·4096·D more on a CPU with half-precision weights, for a part
of Gᵀ·X.

Shapes: R rows (response tokens), of which the first R_neg are of Align-N examples; D hidden size; V
vocabulary; n rows of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cut_dist.kernels.arguments import (
    CutRows,
    Objective,
    Rows,
    check_hidden,
    check_labels,
    check_objective,
    check_token_weight,
)
from cut_dist.kernels.backends import select_backend
from cut_dist.kernels.cut_loss import CutTokenLoss, weighted_sum, without_authentic_loss
from cut_dist.kernels.forward_gradient import attach_gradients, gradient_due

# On the CPU: one context's logits of a chunk. Large enough for the products to run at full speed, and for dW to be
# read and written few times.
_CHUNK_BYTES_CPU = 128 * 2**20
# On CUDA: the share of the free memory that a chunk's logits of all contexts may have, and the rows from which on
# products run at full speed (by their size; not yet timed).
_FREE_SHARE = 0.25
_MAX_CHUNK_ROWS = 2048
# A chunk's logits have −∞ as further tokens up to a multiple of so many columns. Then every row begins where the kernel
# can load 16 bytes at once, whatever the vocabulary, such as 32001.
_COLUMNS = 16
# Rows at once where a CPU adds a product of half precision to a float32 total.
_ROWS_ADDED = 4096


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
    lam_instruction: float | None = None,
    floor: float = 0.0,
    authentic_loss: bool = True,
    token_weight: Tensor | None = None,
    chunk_rows: int | None = None,
    backend: str = "auto",
) -> CutTokenLoss:
    """Computes the CUT loss of response tokens from hidden states, a chunk of their logits at a time.

    Align-N rows come first: the first R_neg = hidden_authentic.shape[0] rows of `hidden` and `labels` are those of
    Align-N examples, aligned with the rows of `hidden_authentic` and `hidden_fake`; the rows after them are Align-P,
    which have no other context. (So there are no dummy rows, and no count to fetch from the device.) Products are made
    in the dtype of the inputs, losses and logit gradients in float32 (float64 for float64), and the weight's gradient
    is accumulated over the chunks in float32.

    Args:
        hidden: (R, D) last hidden states of the instruction context, at the positions that predict the labels.
        hidden_authentic: (R_neg, D) those with the authentic judgment. None: every row is Align-P.
        hidden_fake: (R_neg, D) those with the fake positive judgment, never differentiated. None: the instruction
            context is the contrast.
        weight: (V, D) lm_head weight.
        labels: (R,) int64; −100 marks a row to ignore.
        lam, alpha, gamma, lam_instruction, floor, token_weight, backend: as for `cut_token_loss`.
        authentic_loss: False: the authentic context is only read; it has no loss, and neither `hidden_authentic` nor,
            through it, `weight` a gradient.
        chunk_rows: rows whose logits are held at once. None: on the CPU as many as fit in 128 MiB a context, on CUDA
            as fit in a quarter of the free memory, at most 2048, rounded down to a power of two so that runs repeat.

    Returns:
        A `CutTokenLoss` of (R,) fields; its `loss` is differentiable in `hidden`, `hidden_authentic`,
        `weight`.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range; the message names it. Labels out
            of range are found on the CPU only: elsewhere their rows' numbers mean nothing.
    """
    check_hidden(hidden, hidden_authentic, hidden_fake, weight)
    check_labels(labels, hidden, vocabulary=weight.shape[0])
    check_token_weight(token_weight, labels)
    objective = Objective.of(lam, alpha, gamma, lam_instruction, floor)
    check_objective(objective)
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1, or None, got {chunk_rows}.")
    compute = partial(select_backend(backend, hidden), objective=objective)
    sources = (hidden, hidden_authentic if authentic_loss else None, weight)
    dtypes = (hidden.dtype, hidden.dtype, torch.promote_types(weight.dtype, torch.float32))
    gradients = _Gradients(*map(_empty_if_due, sources, dtypes), 2 if authentic_loss else 1)
    with torch.no_grad(), _autocast_off(weight.device.type):
        contexts = [x for x in (hidden, hidden_authentic, hidden_fake) if x is not None]
        chunks = _cut_chunks(compute, contexts, weight, labels, token_weight, gradients, chunk_rows)
        result = CutRows(*(torch.cat(field) for field in zip(*chunks, strict=True)))
        result = result if authentic_loss else without_authentic_loss(result)
        loss = weighted_sum(result, token_weight)
    return CutTokenLoss(attach_gradients(loss, list(zip(sources, gradients[:3], strict=True))), *result)


class _Gradients(NamedTuple):
    """Where chunks leave their gradients, which come uninitialized, None where none is due; and of how many contexts,
    the first ones, a loss is taken."""

    hidden: Tensor | None
    authentic: Tensor | None
    weight: Tensor | None
    num_learned: int

    def contexts(self) -> int:
        """How many contexts need the gradient of their logits: the first so many."""
        if self.weight is not None or self.authentic is not None:
            return self.num_learned
        return 0 if self.hidden is None else 1


def _cut_chunks(
    compute: Callable[..., CutRows],
    contexts: Sequence[Tensor],
    weight: Tensor,
    labels: Tensor,
    token_weight: Tensor | None,
    gradients: _Gradients,
    chunk_rows: int | None,
) -> Iterator[CutRows]:
    """Losses of one chunk after the other, whose gradients go to `gradients`."""
    vocabulary = weight.shape[0]
    rows_negative = len(contexts[1]) if len(contexts) > 1 else 0
    chunk_rows = chunk_rows or _rows_of_a_chunk(weight, len(contexts))
    chunks = [
        (rows, contexts if rows.stop <= rows_negative else contexts[:1])
        for rows in _chunk_slices(rows_negative, len(labels), chunk_rows)
    ]
    columns = -(-vocabulary // _COLUMNS) * _COLUMNS
    buffer = weight.new_empty(max((rows.stop - rows.start) * len(of) for rows, of in chunks), columns)
    for i, (rows, of) in enumerate(chunks):
        hidden = torch.cat([context[rows] for context in of])
        logits = buffer[: len(hidden)]
        torch.mm(hidden, weight.T, out=logits[:, :vocabulary])
        logits[:, vocabulary:] = -math.inf  # again: the last chunk left its gradients there
        by_context = logits.view(len(of), rows.stop - rows.start, columns)
        due = by_context[: gradients.contexts()]
        part = Rows(*_three(by_context), labels[rows], None, None if token_weight is None else token_weight[rows])
        yield compute(part, grad=_three(due)[0], grad_authentic=_three(due)[1])
        _spend(due.flatten(0, 1)[:, :vocabulary], hidden, weight, rows, gradients, is_first=i == 0)


def _three(tensors: Tensor) -> list[Tensor | None]:
    return [*tensors, None, None, None][:3]


def _spend(
    grad_logits: Tensor, hidden: Tensor, weight: Tensor, rows: slice, gradients: _Gradients, *, is_first: bool
) -> None:
    """Carries a chunk's logit gradients, those of one context above the other's, on to its rows of hidden states and
    to the weight."""
    wanted = (gradients.hidden, gradients.authentic)
    if any(gradient is not None for gradient in wanted):
        parts = torch.mm(grad_logits, weight).split(rows.stop - rows.start)
        for gradient, part in zip(wanted, parts):
            if gradient is not None:
                gradient[rows] = part
    if gradients.weight is not None:
        _add_product(gradients.weight, grad_logits.T, hidden[: len(grad_logits)], beta=0 if is_first else 1)


def _add_product(total: Tensor, a: Tensor, b: Tensor, beta: int) -> None:
    """total = beta·total + a·b in the precision of `total`, with nothing of its size beside it; with 0 unread."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=beta)
    elif total.is_cuda:
        torch.addmm(total, a, b, out_dtype=total.dtype, beta=beta, out=total)
    else:  # a CPU has no such product
        for part, rows in zip(total.split(_ROWS_ADDED), a.split(_ROWS_ADDED)):
            torch.add(rows @ b, part if beta else 0, out=part)


def _rows_of_a_chunk(weight: Tensor, num_contexts: int) -> int:
    row_bytes = weight.shape[0] * weight.element_size()
    if not weight.is_cuda:
        return max(1, _CHUNK_BYTES_CPU // row_bytes)
    cached = torch.cuda.memory_reserved(weight.device) - torch.cuda.memory_allocated(weight.device)
    return _rows_that_fit(torch.cuda.mem_get_info(weight.device)[0] + cached, num_contexts * row_bytes)


def _rows_that_fit(free: int, row_bytes: int) -> int:
    """A power of two of rows, at least one: small changes of the free memory don't change what is computed."""
    rows = min(_MAX_CHUNK_ROWS, int(_FREE_SHARE * free) // row_bytes)
    return 1 << (max(1, rows).bit_length() - 1)


def _autocast_off(device_type: str) -> AbstractContextManager:
    """The products keep the dtype of their operands, which in-place accumulation relies on."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def _empty_if_due(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if not gradient_due(tensor):
        return None
    return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)


def _chunk_slices(rows_negative: int, rows_total: int, chunk_rows: int) -> Iterator[slice]:
    """Nearly equal slices, none across the border of Align-N and Align-P; an empty one for no rows."""
    for start, count in ((0, rows_negative), (rows_negative, rows_total - rows_negative)):
        pieces = -(-count // chunk_rows)
        for i in range(pieces):
            yield slice(start + count * i // pieces, start + count * (i + 1) // pieces)
    if rows_total == 0:
        yield slice(0, 0)
