"""Which models can be trained as they are: what would be computed wrongly is refused, by the config where it tells."""

from __future__ import annotations

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from cut_dist.config_check import ConfigError

_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")  # keys of models whose logits are no product
_SCORES = ("attn_logit_softcapping",)  # keys of what packed attention lacks


class UnsupportedModel(ConfigError):
    """A model that packed contexts or the CUT head would compute wrongly."""

    def __init__(self, what: str, remedy: str = "choose another model (README, Limitations)") -> None:
        super().__init__(f"model.name_or_path: {what}; {remedy}.")


def check_config(config: PreTrainedConfig) -> None:
    """Refuse a model before any weight is loaded.

    Raises:
        UnsupportedModel: its logits are not `hidden @ lm_head.weight.T`; its attention is soft-capped, has dropout,
            goes in chunks or can't be replaced; or it has layers with a state that runs along the packed row (Mamba,
            linear attention, convolutions), through which tokens would see other segments.
    """
    text_config = config.get_text_config()
    for keys, part in ((_LOGITS, "logits"), (_SCORES, "attention scores")):
        for key in keys:
            value = getattr(text_config, key, None)
            if value not in (None, 1, 1.0):
                raise UnsupportedModel(f"{config.model_type} changes its {part} ({key}={value})")
    for key in ("attention_dropout", "attn_pdrop"):
        if value := getattr(text_config, key, None):
            raise UnsupportedModel(f"{config.model_type} has {key}={value}", "set it to 0 in the model's config.json")
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if architecture is None:
        return  # transformers says it better
    kinds = set(getattr(text_config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if architecture._is_stateful or kinds:
        found = f" ({', '.join(sorted(kinds))})" if kinds else ""
        what = f"layers other than full and sliding attention{found}"
    elif not architecture._supports_attention_backend:
        what = "an attention of its own that can't be replaced"
    else:
        return
    raise UnsupportedModel(f"{architecture.__name__} has {what}, so its contexts can't be packed into one row")


def check_head(causal_lm: PreTrainedModel) -> None:
    """Refuse a model whose output layer is not a plain product.

    Raises:
        UnsupportedModel: it has no lm_head, or one with a bias.
    """
    head, name = causal_lm.get_output_embeddings(), type(causal_lm).__name__
    if getattr(head, "weight", None) is None:
        raise UnsupportedModel(f"{name} has no lm_head with a weight, so it is no causal language model")
    if getattr(head, "bias", None) is not None:
        raise UnsupportedModel(f"{name} has a bias in its lm_head")
