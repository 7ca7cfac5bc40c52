"""Decoder layers that compute no more than each token needs: no gradient for contexts that are only read (the fake
one), and recomputation in the backward (activation checkpointing) in as many layers as memory asks for.

A layer's `forward` is replaced on the instance, so that parameters keep their names, and the hooks of `__call__`, in
which DeepSpeed gathers a layer's weights, run once for both parts of a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from cut_dist.config_check import ConfigError
from cut_dist.model.attention import Segments
from cut_dist.model.supported import UnsupportedModel

GRADIENT, NO_GRADIENT = 0, 1  # the parts of a packed row, in this order


class LayerForward:
    """What stands in the place of a decoder layer's `forward`.

    In a packed row with segments that need no gradient the others go through the layer under autograd, then these under
    `no_grad`: for a fake context 7 units of work in place of 9, where a context's forward is 1 unit, its backward 2.
    Without gradients (evaluation, generation) it is the layer's own forward.

    Attributes:
        split: whether the tokens that need no gradient go through on their own.
        checkpointed: whether the backward computes the layer again, from its input.
    """

    def __init__(self, layer: nn.Module, *, split: bool, checkpointed: bool):
        self.layer = layer  # an attribute, no closure: the layers of a deep copy must compute with their own weights
        self.split = split
        self.checkpointed = checkpointed

    def __call__(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """hidden (1, T, D) → (1, T, D); the other arguments are the decoder's.

        Raises:
            ValueError: if the layer is given a tensor that has no dimension of tokens to split.
        """
        if not torch.is_grad_enabled():
            return self.compute(hidden, *args, **kwargs)
        segments: Segments | None = kwargs.get("segments")
        if not (self.split and segments and segments.num_no_grad):
            return self._differentiable(hidden, *args, **kwargs)
        given = (hidden, args, kwargs)
        hidden_g, args_g, kwargs_g = _part(given, GRADIENT, segments)
        # a clone, or what autograd keeps of the layer's input would keep the others too
        out_g = self._differentiable(hidden_g.clone(), *args_g, **kwargs_g)
        with torch.no_grad():
            hidden_n, args_n, kwargs_n = _part(given, NO_GRADIENT, segments)
            out_n = self.compute(hidden_n, *args_n, **kwargs_n)
        return torch.cat([out_g, out_n], dim=1)

    def compute(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's own forward."""
        return type(self.layer).forward(self.layer, *args, **kwargs)

    def _differentiable(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.checkpointed:
            return self.compute(*args, **kwargs)
        # the reentrant kind breaks under ZeRO-3 with more than one forward
        return checkpoint(self.compute, *args, use_reentrant=False, **kwargs)


def _part(value: Any, part: int, segments: Segments) -> Any:
    """One part's tokens of whatever a decoder hands to its layers: tensors (1, T, …), alone or in containers."""
    if value is segments:
        return segments.parts[part]
    if isinstance(value, torch.Tensor):
        if value.dim() < 2 or value.shape[1] != sum(segments.lengths):
            raise ConfigError(
                f"The decoder hands its layers a tensor of shape {tuple(value.shape)}, which can't be split by tokens: "
                "set model.context_split=off."
            )
        border = sum(segments.parts[GRADIENT].lengths)
        return value[:, :border] if part == GRADIENT else value[:, border:]
    if isinstance(value, dict):
        return {key: _part(item, part, segments) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_part(item, part, segments) for item in value)
    return value


def decoder_layers(causal_lm: PreTrainedModel) -> list[nn.Module]:
    """The decoder's layers from the first to the last: what transformers itself would checkpoint one by one."""
    return [module for module in causal_lm.get_decoder().modules() if isinstance(module, GradientCheckpointingLayer)]


def replace_forwards(causal_lm: PreTrainedModel, *, split: bool, checkpointed: bool) -> None:
    """Put a `LayerForward` in the place of every decoder layer's `forward`.

    Raises:
        UnsupportedModel: transformers marks no layers of it as such.
    """
    layers = decoder_layers(causal_lm)
    if not layers:
        raise UnsupportedModel(f"no decoder layers found in {type(causal_lm).__name__}")
    for layer in layers:
        layer.forward = LayerForward(layer, split=split, checkpointed=checkpointed)
