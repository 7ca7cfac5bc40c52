"""Tiny models on disk and configurations for the tests of generators and judges."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from cut_dist.config_compose import compose_config
from cut_dist.model.tiny import byte_tokenizer
from cut_dist.online.config import OnlineConfig

SIZES = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "tie_word_embeddings": False,
}  # fmt: skip


def save_tiny(folder: Path, *, generation: GenerationConfig | None = None, seed: int = 0, **change: float) -> Path:
    """A random Llama with the byte tokenizer. `change` sets a value on all weights of lm_head: `lm_head=nan`."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    if "lm_head" in change:
        torch.nn.init.constant_(model.lm_head.weight, change["lm_head"])
    if generation is not None:
        model.generation_config = generation
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def online_config(*overrides: str) -> OnlineConfig:
    """conf/online.yaml with the paper's template and the tiny model, unless overridden."""
    return compose_config("online", ["model=tiny_random", "data.template=alpaca", *overrides], OnlineConfig)
