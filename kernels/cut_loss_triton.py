"""The objective's rows as one Triton kernel: each row of logits is read once for its losses, and once more, out of
the L2 cache, for its gradient.

Forward, for the label y of a row of logits z (the margin d and why it keeps all digits: `cut_loss_torch`):

    m = max_{v≠y} z_v,  S = Σ_{v≠y} e^{z_v−m},  d = m − z_y + log S,  log p = −softplus(d),  log(1−p) = −softplus(−d)

    inappropriate: log p⁻ − log p⁺ > log λ,   w = α·e^{γ·log p⁻}            (− authentic, + fake context)
                   and neither log p⁻ − log p ≤ log λ₂ nor log p⁻ ≤ log σ   (DualCUT; −∞ leaves all as it is)
    loss_instruction = w·softplus(−d) if inappropriate else softplus(d),    loss_authentic = softplus(d⁻)

Backward, t the row's weight:

    ∂/∂z_v = c·(q_v − [v = y]),   q_v = e^{z_v−m}/S  for v ≠ y,   q_y = 0
    c = −t·w·sigmoid(−d) if inappropriate else t·sigmoid(d),   c⁻ = t·sigmoid(d⁻)

A row that is not used (label −100; other contexts of Align-P rows) is taken for one of no tokens, S = 0 and d = −∞: it
is not read, its log p and loss are 0, and so is the gradient that is written.

Shapes: R rows (response tokens), V tokens in the vocabulary. One program a row.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from cut_dist.kernels.arguments import IGNORE_INDEX, CutRows, Objective, Rows

_IGNORE = tl.constexpr(IGNORE_INDEX)
_LOWEST = tl.constexpr(torch.finfo(torch.float32).min)  # not −inf, of which −inf − −inf would make NaN
_INF = tl.constexpr(math.inf)
_LOG2_E = tl.constexpr(math.log2(math.e))

# 16 warps a program; (16-byte loads that a thread has under way at once, registers that it may use). A multiprocessor
# is to hold one program of long rows and not two: fewer rows then wait in L2 for their second reading. Without a bound
# ptxas spills in some cases to fit in more programs. Chosen by counting (an H100 has 132 multiprocessors and 50 MB of
# L2), not yet by timing.
_WARPS = 16
_SHORT_ROW, _LONG_ROW, _UNALIGNED_ROW = (2, 64), (4, 128), (1, 64)
_LONG_ROW_BYTES = 96 * 2**10


def cut_rows(
    rows: Rows, objective: Objective, grad: Tensor | None = None, grad_authentic: Tensor | None = None
) -> CutRows:
    """`cut_loss_torch.cut_rows` for float16, bfloat16 and float32, in float32 arithmetic.

    Raises:
        ValueError: a gradient buffer whose columns do not lie side by side.
    """
    contexts = [_with_adjacent_columns(x) for x in rows[:3]]
    of_rows = [x if x is None else x.contiguous() for x in rows[3:]]
    buffers = (grad, grad_authentic)
    if any(x is not _with_adjacent_columns(x) for x in buffers):
        raise ValueError("a gradient is written only to rows whose columns are adjacent in memory; use inplace=False.")
    count, vocabulary = rows.logits.shape
    dtypes = (torch.bool if field == "inappropriate" else torch.float32 for field in CutRows._fields)
    result = CutRows(*(torch.empty(count, dtype=dtype, device=rows.logits.device) for dtype in dtypes))
    if count > 0:
        sizes = [*(0 if x is None else x.stride(0) for x in (*contexts, *buffers)), vocabulary]
        scalars = (*objective.log_thresholds(), float(objective.alpha), float(objective.gamma))
        with torch.cuda.device_of(rows.logits):  # Triton launches on the current device
            _cut_row[(count,)](
                *contexts, *of_rows, *buffers, *result, *sizes, *scalars, **_launch(sizes, rows.logits.dtype)
            )  # fmt: skip
    return result


def _launch(sizes: list[int], dtype: torch.dtype) -> dict[str, int]:
    """The kernel's tile, LANES times VEC neighbouring logits, for strides and the number of columns."""
    if any(size % 16 for size in sizes):  # what Triton looks at before it compiles 16-byte loads
        loads, registers = _UNALIGNED_ROW
    else:
        loads, registers = _LONG_ROW if sizes[-1] * dtype.itemsize > _LONG_ROW_BYTES else _SHORT_ROW
    lanes, vec = 32 * _WARPS * loads, 16 // dtype.itemsize
    return {"LANES": lanes, "VEC": vec, "num_warps": _WARPS, "maxnreg": registers}


def _with_adjacent_columns(x: Tensor | None) -> Tensor | None:
    return x if x is None or x.shape[1] == 1 or x.stride(1) == 1 else x.contiguous()


# A run compiles each case once, whatever the objective's numbers and wherever in memory a chunk's labels start.
@triton.jit(
    do_not_specialize=["log_lam", "log_lam_instruction", "log_floor", "alpha", "gamma"],
    do_not_specialize_on_alignment=["labels", "is_negative", "token_weight"],
)
def _cut_row(
    logits, authentic, fake, labels, is_negative, token_weight, grad, grad_authentic,
    loss_instruction, loss_authentic, is_inappropriate, logp_instruction, logp_authentic, logp_fake,
    stride, stride_authentic, stride_fake, stride_grad, stride_grad_authentic,
    V, log_lam, log_lam_instruction, log_floor, alpha, gamma, LANES: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """One row of the equations above. What is None is compiled away."""
    r = tl.program_id(0).to(tl.int64)  # times a stride it may pass 2³¹
    y = tl.load(labels + r).to(tl.int32)  # as wide as the columns that it is compared with
    valid = y != _IGNORE
    negative = valid if is_negative is None else valid & (tl.load(is_negative + r) != 0)
    readable, readable_judged = tl.where(valid, V, 0), tl.where(negative, V, 0)
    weight = 1.0 if token_weight is None else tl.load(token_weight + r, mask=valid, other=0.0).to(tl.float32)

    # A row is read a second time, for its gradient, before the next one is touched: then it still lies in the cache.
    logp_a = tl.zeros([], tl.float32)
    logp_f = tl.zeros([], tl.float32)
    if fake is not None:
        _, _, d_f = _others(fake + r * stride_fake, y, readable_judged, "evict_first", LANES, VEC)
        logp_f = -_softplus(d_f)
    if authentic is not None:
        z_a = authentic + r * stride_authentic
        eviction_a: tl.constexpr = "evict_first" if grad_authentic is None else "evict_last"
        m_a, s_a, d_a = _others(z_a, y, readable_judged, eviction_a, LANES, VEC)
        logp_a = -_softplus(d_a)
        if grad_authentic is not None:
            c_a = weight * _sigmoid(d_a)
            out_a = grad_authentic + r * stride_grad_authentic
            _write_gradient(out_a, z_a, y, c_a, m_a, s_a, V, readable_judged, LANES, VEC)
    z = logits + r * stride
    eviction: tl.constexpr = "evict_first" if grad is None else "evict_last"
    m, s, d = _others(z, y, readable, eviction, LANES, VEC)
    logp = -_softplus(d)
    if authentic is not None and fake is None:
        logp_f = tl.where(negative, logp, 0.0)

    inappropriate = negative & (logp_a - logp_f > log_lam) & (authentic is not None)  # paper eq. 5
    doubted = (logp_a - logp <= log_lam_instruction) | (logp_a <= log_floor)
    inappropriate = inappropriate & ~doubted
    w = tl.where(inappropriate, alpha * tl.exp(gamma * logp_a), 0.0)
    unlikelihood = tl.where(w > 0, w * _softplus(-d), 0.0)  # 0 also where w = 0 and log(1 − p) = −∞
    tl.store(loss_instruction + r, tl.where(inappropriate, unlikelihood, -logp))  # paper eq. 6
    tl.store(loss_authentic + r, -logp_a)
    tl.store(is_inappropriate + r, inappropriate)
    tl.store(logp_instruction + r, logp)
    tl.store(logp_authentic + r, logp_a)
    tl.store(logp_fake + r, logp_f)

    if grad is not None:
        c = weight * tl.where(inappropriate, -w * _sigmoid(-d), _sigmoid(d))
        _write_gradient(grad + r * stride_grad, z, y, c, m, s, V, readable, LANES, VEC)


@triton.jit
def _others(z, y, readable, EVICTION: tl.constexpr, LANES: tl.constexpr, VEC: tl.constexpr):
    """m, S and d of a row z. Each lane sums what it loads against its own maximum; lanes meet once, at the end."""
    # Loaded before the lanes meet: after that a faster warp may have written a gradient here already.
    # A label out of range makes its row NaN; looking for one on the host would wait for the device.
    z_y = tl.load(z + y, mask=(y >= 0) & (y < readable), other=float("nan")).to(tl.float32)
    z_y = tl.where(readable > 0, z_y, 0.0)
    tops = tl.full([LANES], _LOWEST, tl.float32)
    sums = tl.zeros([LANES], tl.float32)
    tile, own, last = _tiles(y, tl.maximum(readable, 1), LANES, VEC)
    for start in range(0, last, LANES * VEC):
        columns = tl.where(start == own, last, start) + tile
        x = tl.load(z + columns, mask=columns < readable, other=-_INF, eviction_policy=EVICTION).to(tl.float32)
        tops, sums = _add(tops, sums, x)
    columns = own + tile
    x = tl.load(z + columns, mask=columns < readable, other=-_INF, eviction_policy=EVICTION).to(tl.float32)
    tops, sums = _add(tops, sums, tl.where(columns == y, -_INF, x))
    m = tl.max(tops, 0)
    s = tl.sum(sums * _exp(tops - m), 0)
    return m, s, (m - z_y) + tl.log(s)  # log S = −∞ where there are no other tokens


@triton.jit
def _add(tops, sums, x):
    """Each lane's maximum and sum with one more tile."""
    higher = tl.maximum(tops, tl.max(x, 1))
    return higher, sums * _exp(tops - higher) + tl.sum(_exp(x - higher[:, None]), 1)


@triton.jit
def _write_gradient(out, z, y, c, m, s, V, readable, LANES: tl.constexpr, VEC: tl.constexpr):
    """out = c·(q − onehot(y)), which may overwrite z. Last tile first: what was read last still lies in the cache."""
    scale = c / tl.where(s == 0, 1.0, s)
    tile, own, last = _tiles(y, V, LANES, VEC)
    columns = own + tile
    x = tl.load(z + columns, mask=columns < readable, other=-_INF, eviction_policy="evict_first").to(tl.float32)
    _store(out, columns, tl.where(columns == y, -c, _exp(x - m) * scale), V)
    for back in range(0, last, LANES * VEC):
        start = last - LANES * VEC - back
        columns = tl.where(start == own, last, start) + tile
        x = tl.load(z + columns, mask=columns < readable, other=-_INF, eviction_policy="evict_first").to(tl.float32)
        _store(out, columns, _exp(x - m) * scale, V)


@triton.jit
def _tiles(y, count, LANES: tl.constexpr, VEC: tl.constexpr):
    """The columns of the first tile, and where the label's and the last of `count` columns' begin.

    The label's tile is left for a turn of its own, so that no other compares its columns with the label.
    """
    last = (count - 1) // (LANES * VEC) * (LANES * VEC)
    own = tl.minimum(tl.maximum(y, 0) // (LANES * VEC) * (LANES * VEC), last)
    return tl.arange(0, LANES)[:, None] * VEC + tl.arange(0, VEC)[None, :], own, last


@triton.jit
def _store(out, columns, gradient, V):
    tl.store(out + columns, gradient.to(out.dtype.element_ty), mask=columns < V, eviction_policy="evict_first")


@triton.jit
def _exp(x):
    """e^x with e^−87.4 and less as 0, for which `tl.exp` spends three more instructions a logit."""
    return tl.exp2(x * _LOG2_E)


@triton.jit
def _softplus(d):
    """log(1 + e^d), to the last digits where it is small: log1p(u) = log(1 + u)·u / ((1 + u) − 1)."""
    u = tl.exp(-tl.abs(d))
    rounded = 1.0 + u
    log1p = tl.where(rounded == 1.0, u, tl.log(rounded) * (u / tl.where(rounded == 1.0, 1.0, rounded - 1.0)))
    return tl.maximum(d, 0.0) + log1p


@triton.jit
def _sigmoid(d):
    """1 / (1 + e^−d) without an overflow."""
    u = tl.exp(-tl.abs(d))
    return tl.where(d >= 0, 1.0, u) / (1.0 + u)
