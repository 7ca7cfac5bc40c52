"""Models that would be computed wrongly are refused in a sentence, by their config where it tells."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

from cut_dist.config import ModelConfig
from cut_dist.model.load import load_causal_lm
from cut_dist.model.supported import UnsupportedModel, check_config, check_head


@pytest.mark.parametrize(
    ("family", "keys", "reason"),
    [
        ("mamba", {}, "linear_attention.*can't be packed"),
        ("qwen3_next", {}, "linear_attention.*can't be packed"),
        ("llama4_text", {}, "chunked_attention.*can't be packed"),
        ("jamba", {}, "other than full.*can't be packed"),
        ("falcon", {}, "attention of its own.*can't be packed"),
        ("bloom", {}, "attention of its own.*can't be packed"),
        ("gemma2", {}, "gemma2 changes its logits .final_logit_softcapping=30"),
        ("gemma2", {"final_logit_softcapping": None}, "attention scores .attn_logit_softcapping=50"),
        ("cohere", {}, "logit_scale=0.0625"),
        ("granite", {"logits_scaling": 8.0}, "logits_scaling=8"),
        ("llama", {"attention_dropout": 0.1}, "llama has attention_dropout=0.1; set it to 0"),
        ("gpt2", {}, "attn_pdrop=0.1; set it to 0"),
    ],
)
def test_models_are_refused_before_their_weights_are_read(family, keys, reason, tmp_path):
    AutoConfig.for_model(family, **keys).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match=f"^model.name_or_path: .*{reason}"):
        load_causal_lm(ModelConfig(name_or_path=str(tmp_path)), dtype=torch.float32, seed=0)


def test_keys_that_change_nothing_are_no_reason():
    check_config(AutoConfig.for_model("granite", logits_scaling=1.0))
    check_config(AutoConfig.for_model("llama", logit_scale=1, attention_dropout=0.0))


@pytest.mark.parametrize(
    ("head", "reason"),
    [(None, "no lm_head"), (SimpleNamespace(weight=torch.zeros(2, 2), bias=torch.zeros(2)), "a bias in its lm_head")],
)
def test_an_output_layer_that_is_no_plain_product_is_refused(head, reason):
    with pytest.raises(UnsupportedModel, match=reason):
        check_head(SimpleNamespace(get_output_embeddings=lambda: head))
