"""How much of the hardware is used: model FLOPs, peak rates, MFU, memory.

A multiply-add is 2 FLOPs. With L layers, D hidden, H heads of size d, G key/value heads, F feed-forward, V
words:

    weights of a layer   2·D·H·d (q, o) + 2·D·G·d (k, v) + 3·D·F (gate, up, down)
    forward, per token   2·L · (those)
    forward, attention   4·L·H·d for every (query, key) pair that the causal mask lets through
    forward, head        2·D·V for every response row (the head looks at no other position)
    backward             twice the forward

Contexts without gradient (`fake`) cost their forward alone. Recomputation by checkpointing is not counted:
these are the model's FLOPs, so MFU is comparable between settings. Norms, rotations and the embedding
lookup are left out.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

GIB = 2**30

# Families whose layer is exactly the one above.
_GATED_DECODERS = {
    "llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "smollm3",
    "olmo", "olmo2", "granite", "cohere", "cohere2", "glm", "glm4", "helium",
}  # fmt: skip

# Dense bf16 peak with float32 accumulation, TFLOP/s, from the vendors' data sheets (half of one "with
# sparsity"). First match wins, so the special names come before the general ones.
_BF16_PEAKS = (
    ("GB200", 2500.0), ("B200", 2250.0), ("B100", 1750.0),
    ("H200 NVL", 835.5), ("GH200", 989.4), ("H200", 989.4),
    ("H100 PCIE", 756.5), ("H100 NVL", 835.5), ("H100", 989.4), ("H800", 989.4), ("H20", 148.0),
    ("A100", 312.0), ("A800", 312.0), ("A40", 149.7), ("A30", 165.0), ("A6000", 154.8),
    ("L40S", 362.05), ("L40", 181.05), ("L4", 121.0), ("RTX 6000 ADA", 364.25),
    ("RTX 4090", 165.2), ("RTX 3090", 71.0),
    ("MI355X", 2516.6), ("MI325X", 1307.4), ("MI300X", 1307.4), ("MI250X", 191.5),
)  # fmt: skip


@dataclass(frozen=True)
class ModelShape:
    """What the cost of a Llama-like decoder depends on."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int

    @property
    def matmul_parameters(self) -> int:
        """Weights that every token is multiplied with: the decoder's matrices, without embedding and head."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)


def model_shape(config: Any) -> ModelShape | None:
    """The shape of a Hugging Face config, or None for a family that the formulas above don't describe."""
    if config.model_type not in _GATED_DECODERS:
        return None
    heads = config.num_attention_heads
    return ModelShape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
    )


def causal_pairs(lengths: Iterable[int]) -> int:
    """(query, key) pairs under the causal mask in packed segments of these lengths."""
    return sum(length * (length + 1) // 2 for length in lengths)


def forward_flops(shape: ModelShape, *, tokens: int, pairs: int, head_rows: int) -> int:
    """FLOPs of one forward; with the backward it is three times as many.

    Args:
        shape: the decoder.
        tokens: positions through the layers.
        pairs: `causal_pairs` of their segments.
        head_rows: positions through the lm_head.
    """
    attention = 4 * shape.layers * shape.heads * shape.head_dim * pairs
    return 2 * shape.matmul_parameters * tokens + attention + 2 * shape.hidden * shape.vocab * head_rows


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 peak of an accelerator, in FLOP/s, by the name its driver gives; None if it is not known."""
    name = device_name.upper().replace("-", " ")
    words = f" {name} "
    for known, tera in _BF16_PEAKS:
        if f" {known} " in words:
            return tera * 1e12
    return None


def mfu(flops: float, seconds: float, *, world_size: int, peak: float | None) -> float | None:
    """Share of their peak that all ranks reached with `flops` in `seconds`; None for an unknown peak."""
    return None if peak is None or seconds <= 0 else flops / (seconds * world_size * peak)


def memory_stats(device: torch.device) -> dict[str, float]:
    """Memory of this process in GiB: now and at its peak; on an accelerator the device's, else the host's."""
    if device.type == "cuda":
        return {
            "memory/allocated_gib": torch.cuda.memory_allocated(device) / GIB,
            "memory/peak_allocated_gib": torch.cuda.max_memory_allocated(device) / GIB,
            "memory/peak_reserved_gib": torch.cuda.max_memory_reserved(device) / GIB,
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"memory/rss_gib": _resident_bytes(peak) / GIB, "memory/peak_rss_gib": peak / GIB}


def _resident_bytes(otherwise: int) -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return otherwise
