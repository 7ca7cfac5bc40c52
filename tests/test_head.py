from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from cut_dist.model.head import CutHead, CutModel

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip


def model(tied: bool):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, tie_word_embeddings=tied))


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_owns_the_lm_head_weight_and_names_stay(tied):
    causal_lm = model(tied)
    before = {name: p.clone() for name, p in causal_lm.state_dict().items()}
    tokens = torch.arange(10)[None]
    logits = causal_lm(tokens).logits
    CutModel(causal_lm, lam=1.1, alpha=1, gamma=1, attention="sdpa")
    assert isinstance(causal_lm.lm_head, CutHead)
    assert causal_lm.state_dict().keys() == before.keys()
    assert (causal_lm.lm_head.weight is causal_lm.model.embed_tokens.weight) == tied
    torch.testing.assert_close(causal_lm(tokens).logits, logits)
    assert causal_lm.generate(tokens, max_new_tokens=3, do_sample=False).shape == (1, 13)
