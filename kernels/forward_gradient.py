"""Gradients that were made in the forward, handed to autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from cut_dist.kernels.arguments import may_look
from cut_dist.kernels.backends import HAS_TRITON


def gradient_due(tensor: Tensor | None) -> bool:
    """Whether a forward has to make the gradient for `tensor`: never under `torch.no_grad`."""
    return tensor is not None and torch.is_grad_enabled() and tensor.requires_grad


def attach_gradients(
    loss: Tensor, pairs: Sequence[tuple[Tensor | None, Tensor | None]], *, inplace: bool = False
) -> Tensor:
    """Makes `loss`, a scalar computed without autograd, differentiable.

    Args:
        loss: the scalar.
        pairs: (tensor, gradient of `loss` for it); gradient None where none is due. The gradient may have another
            dtype than the tensor: it is multiplied by the upstream factor first and rounded after.
        inplace: let the backward scale the gradients in place; it can then run only once.
    """
    due = [(tensor, gradient) for tensor, gradient in pairs if gradient is not None]
    if not due:
        return loss
    inputs, gradients = zip(*due, strict=True)
    return _ForwardGradient.apply(loss, gradients, inplace, *inputs)


class _ForwardGradient(torch.autograd.Function):
    """Identity on a scalar whose gradients for some inputs are known already."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, loss: Tensor, gradients: tuple[Tensor, ...], inplace: bool, *inputs: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*gradients)
        ctx.inplace = inplace
        ctx.dtypes = [tensor.dtype for tensor in inputs]
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        scaled = (_scale(gradient, upstream, dtype, ctx.inplace) for gradient, dtype in pairs)
        return None, None, None, *scaled


def _scale(gradient: Tensor, factor: Tensor, dtype: torch.dtype, inplace: bool) -> Tensor:
    if may_look(factor) and factor.item() == 1:  # as it usually is
        return gradient.to(dtype)
    if inplace:
        return _scale_in_place(gradient, factor)
    return torch.mul(gradient, factor, out=torch.empty_like(gradient, dtype=dtype))


def _scale_in_place(gradient: Tensor, factor: Tensor) -> Tensor:
    by_kernel = gradient.is_cuda and gradient.dtype != torch.float64 and gradient.is_contiguous()
    if not by_kernel or not HAS_TRITON or torch.compiler.is_compiling():
        return gradient.mul_(factor)
    from cut_dist.kernels.scale_triton import scale_

    return scale_(gradient, factor)
