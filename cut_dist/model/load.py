"""Model and tokenizer from the config: a Hub name, a folder, or a random small Llama."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from cut_dist.config_check import ConfigError
from cut_dist.model.attention import PACKED
from cut_dist.model.layers import replace_forwards
from cut_dist.model.resolve import resolve_model
from cut_dist.model.supported import check_config
from cut_dist.model.tiny import byte_tokenizer

if TYPE_CHECKING:
    from cut_dist.config import ModelConfig


def load_tokenizer(cfg: ModelConfig) -> Tokenizer:
    """The tokenizer of `model.tokenizer`, else the model's own; "bytes" is the built-in byte-level one.

    Raises:
        ConfigError: it has no end-of-sequence token, which every response must end in.
    """
    if cfg.tokenizer == "bytes":
        return byte_tokenizer()
    path = resolve_model(cfg.tokenizer or cfg.name_or_path, cfg.revision)
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model.tokenizer: that of {path} has no eos_token. Set one in its tokenizer_config.json.")
    return tokenizer


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """`auto`: bf16 where the device computes it natively, fp32 elsewhere (and on the CPU)."""
    if precision == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if bf16 else torch.float32
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def load_causal_lm(cfg: ModelConfig, *, dtype: torch.dtype, seed: int) -> PreTrainedModel:
    """The model in `dtype`, with packed attention, in train mode.

    Inside an active `HfDeepSpeedConfig` of stage 3 the weights arrive partitioned: rank 0 reads them on the host, and
    no device ever holds them all.

    Raises:
        UnsupportedModel: its contexts can't be packed into one row, or its logits are no plain product.
    """
    if cfg.random_init is not None:
        torch.manual_seed(seed)
        config = LlamaConfig(**cfg.random_init, attn_implementation=PACKED)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    else:
        path = resolve_model(cfg.name_or_path, cfg.revision)
        config = AutoConfig.from_pretrained(path)
        check_config(config)
        model = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=dtype, attn_implementation=PACKED, use_safetensors=True
        )
    # selective begins as full: the engine is there before anyone knows how much memory is left
    replace_forwards(model, split=cfg.context_split == "auto", checkpointed=cfg.checkpointing != "none")
    model.config.use_cache = False
    return model.train()


def position_limit(cfg: ModelConfig) -> int | None:
    """Most tokens of prompt and reply together by the model's own config; None where it sets no limit."""
    if cfg.random_init is not None:
        config = LlamaConfig(**cfg.random_init)
    else:
        config = AutoConfig.from_pretrained(resolve_model(cfg.name_or_path, cfg.revision))
    text_model = config.get_text_config()
    return getattr(text_model, "max_position_embeddings", None)


def load_for_generation(cfg: ModelConfig, *, dtype: torch.dtype, device: torch.device, seed: int) -> PreTrainedModel:
    """The same weights as plain transformers has them (SDPA, KV cache), whole on one device, in eval mode.

    Raises:
        ConfigError: the model does not fit into the device's memory.
    """
    if cfg.random_init is not None:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            LlamaConfig(**cfg.random_init), dtype=dtype, attn_implementation="sdpa"
        )
    else:
        path = resolve_model(cfg.name_or_path, cfg.revision)
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, attn_implementation="sdpa", use_safetensors=True
        )
    try:
        return model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"{cfg.name_or_path or 'The model'} does not fit into the memory of {device}, which must hold all of it: "
            "generator=vllm spreads it over GPUs (generator.tensor_parallel), generator=endpoint leaves it to a server."
        ) from error
