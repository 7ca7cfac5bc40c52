"""Attention over packed segments, registered with transformers under the name `PACKED`.

The decoder is called with `segments=` (cu_seqlens, lengths); every attention layer then attends causally within each
segment. Without `segments` (generation, one unpadded sequence at a time) it is transformers' own SDPA.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from cut_dist.config_check import ConfigError
from cut_dist.model.supported import UnsupportedModel

log = logging.getLogger(__name__)

PACKED = "cut_dist_packed"


@dataclass(frozen=True)
class Segments:
    """Where the segments of a packed row lie.

    Attributes:
        cu_seqlens: (S + 1,) int32 on the device.
        lengths: the S lengths on the host.
        backend: a key of `BACKENDS`.
        num_no_grad: how many segments at the end need no gradient.
    """

    cu_seqlens: torch.Tensor
    lengths: tuple[int, ...]
    backend: str
    num_no_grad: int = 0

    @cached_property
    def parts(self) -> tuple[Segments, Segments]:
        """The segments that need a gradient and those that don't, each as a row of its own."""
        border = len(self.lengths) - self.num_no_grad
        cu_gradient, cu_no_grad = self.cu_seqlens[: border + 1], self.cu_seqlens[border:]
        return (
            Segments(cu_gradient, self.lengths[:border], self.backend),
            Segments(cu_no_grad - cu_no_grad[0], self.lengths[border:], self.backend),
        )


def _sdpa(query, key, value, segments: Segments, scaling: float, window: int | None) -> torch.Tensor:
    """One SDPA call a segment. query (1, H, T, D), key and value (1, H_kv, T, D) → (1, T, H, D)."""
    outs = []
    parts = (x.split(segments.lengths, dim=2) for x in (query, key, value))
    for q, k, v in zip(*parts):
        n, mask = q.shape[2], None
        if window is not None and n > window:
            i = torch.arange(n, device=q.device)
            mask = (i[:, None] >= i[None, :]) & (i[:, None] - i[None, :] < window)
        outs.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=k.shape[1] != q.shape[1]
            )
        )
    return torch.cat(outs, dim=2).transpose(1, 2)


def _varlen(query, key, value, segments: Segments, scaling: float, window: int | None) -> torch.Tensor:
    """torch's variable-length flash attention (bf16 and fp16 on CUDA). Shapes as in `_sdpa`."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    cu, longest = segments.cu_seqlens, max(segments.lengths)
    left = -1 if window is None else window - 1
    options = {"scale": scaling, "window_size": (left, 0)}
    if "enable_gqa" in _varlen_parameters():
        options["enable_gqa"] = k.shape[1] != q.shape[1]
    else:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    out = varlen_attn(q, k, v, cu, cu, longest, longest, **options)
    return out[None]


def _flash(query, key, value, segments: Segments, scaling: float, window: int | None) -> torch.Tensor:
    """The flash-attn package (bf16 and fp16 on CUDA). Shapes as in `_sdpa`."""
    from flash_attn import flash_attn_varlen_func

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    cu, longest = segments.cu_seqlens, max(segments.lengths)
    left = -1 if window is None else window - 1
    out = flash_attn_varlen_func(
        q, k, v, cu, cu, longest, longest, softmax_scale=scaling, causal=True, window_size=(left, 0)
    )
    return out[None]


BACKENDS: dict[str, Callable] = {"sdpa": _sdpa, "varlen": _varlen, "flash": _flash}


def choose_backend(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Resolve `model.attention`.

    `auto`: flash-attn where it is installed, else torch's varlen kernel, on CUDA in bf16; SDPA by segment elsewhere.

    Raises:
        ConfigError: if the backend that was asked for can't run here.
    """
    half_on_cuda = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    has = {
        "sdpa": lambda: True,
        "flash": lambda: half_on_cuda and _has_flash(),
        "varlen": lambda: half_on_cuda and {"scale", "window_size"} <= _varlen_parameters(),
    }
    if name == "auto":
        return next(backend for backend in ("flash", "varlen", "sdpa") if has[backend]())
    if not has[name]():
        raise ConfigError(
            f"model.attention={name} needs CUDA, bf16 and its package (flash: `pip install cut-dist[flash]`, varlen: "
            f"torch >= 2.11); this run has {device.type} and {dtype}. Use model.attention=auto"
        )
    return name


@cache
def _has_flash() -> bool:
    """Whether the flash-attn package is there and was built for this torch; it says so only when imported."""
    if find_spec("flash_attn") is None:
        return False
    try:
        from flash_attn import flash_attn_varlen_func  # noqa: F401
    except (ImportError, OSError) as error:
        log.warning("flash-attn is installed but can't be imported: %s", error)
        return False
    return True


@cache
def _varlen_parameters() -> frozenset[str]:
    """What torch's varlen kernel can be asked for; it came by and by, from 2.10 to 2.12."""
    if find_spec("torch.nn.attention.varlen") is None:
        return frozenset()
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def packed_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, segments: Segments | None = None, **kwargs
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls: (1, H, T, D) queries → ((1, T, H, D), None).

    Raises:
        UnsupportedModel: it needs what a packed kernel would silently leave out.
    """
    if segments is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    for feature in ("softcap", "s_aux"):
        if kwargs.get(feature) is not None:
            raise UnsupportedModel(f"{type(module).__name__} uses attention `{feature}`, which packed attention lacks")
    if dropout:
        what = f"{type(module).__name__} has attention dropout"
        raise UnsupportedModel(what, "set it to 0 in the model's config.json")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = BACKENDS[segments.backend](query, key, value, segments, scaling, kwargs.get("sliding_window"))
    return out, None


AttentionInterface.register(PACKED, packed_attention)
