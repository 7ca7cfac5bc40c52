"""A gradient times the upstream factor, which the host does not know and which as a rule is 1: then nothing is read."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096
_PROGRAMS = 1024  # each takes tile after tile, so that a factor of 1 starts no more than these


def scale_(x: Tensor, factor: Tensor) -> Tensor:
    """`x.mul_(factor)`, in float32 arithmetic, without a pass over `x` where the factor is 1 and without a host sync.

    Args:
        x: float32, bfloat16 or float16, of any shape, contiguous.
        factor: () on the same device.

    Returns:
        x.
    """
    if x.numel() > 0:
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _scale[(min(_PROGRAMS, triton.cdiv(x.numel(), _TILE)),)](x, factor, x.numel(), TILE=_TILE)
    torch.autograd.graph.increment_version(x)  # a Triton kernel's writes go past autograd
    return x


@triton.jit
def _scale(x, factor, count, TILE: tl.constexpr):
    by = tl.load(factor).to(tl.float32)
    if by != 1.0:
        first = tl.program_id(0).to(tl.int64) * TILE
        for start in range(first, count, tl.num_programs(0) * TILE):
            places = start + tl.arange(0, TILE)
            inside = places < count
            scaled = tl.load(x + places, mask=inside, eviction_policy="evict_first").to(tl.float32) * by
            tl.store(x + places, scaled.to(x.dtype.element_ty), mask=inside, eviction_policy="evict_first")
