from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cut_dist.engine import activations
from cut_dist.engine.launch import Ranks
from cut_dist.model.attention import PACKED
from cut_dist.model.head import CutModel
from cut_dist.model.layers import decoder_layers, replace_forwards

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip
CPU = Ranks(0, 1, torch.device("cpu"))


def cut_model(dtype: torch.dtype = torch.float32) -> CutModel:
    causal_lm = LlamaForCausalLM(LlamaConfig(**SIZES, use_cache=False, attn_implementation=PACKED)).to(dtype).train()
    replace_forwards(causal_lm, split=True, checkpointed=True)
    return CutModel(causal_lm, lam=1.1, alpha=1, gamma=1, attention="sdpa")


def test_the_bytes_that_autograd_keeps_are_those_counted_by_hand():
    model = cut_model()
    layers = decoder_layers(model.causal_lm)
    saved, given = activations.bytes_per_token(model, layers, CPU)
    # floats a token: two norms with input, factor, scaled input and output (2·(32 + 1 + 32 + 32)); q, k, v and the
    # attention's output (32 + 16 + 16 + 32), 4 sums of exponentials, the output again as o_proj takes it (32); gate,
    # its silu, up, and their product (4·64)
    assert saved == [4 * (194 + 100 + 32 + 256)] * 2
    assert given == [4 * 32] * 2
    assert all(layer.forward.checkpointed and not layer._forward_pre_hooks for layer in layers)


@pytest.mark.parametrize(
    ("room", "kept"),
    [(-5, 0), (369, 0), (370, 1), (459, 1), (460, 2), (549, 2), (550, 3), (10**15, 3)],
)
def test_as_many_layers_as_fit_beside_all_inputs_and_the_layer_in_its_backward(room, kept):
    # 3·20 for the inputs and 2·110 for a layer in its backward are always needed, 90 more for each layer that keeps
    assert activations.layers_that_fit([110] * 3, [20] * 3, room) == kept


def test_the_last_layers_are_asked_first():
    assert activations.layers_that_fit([1000, 50, 50], [10, 10, 10], 30 + 2000 + 80) == 2


@pytest.mark.parametrize(
    ("dtype", "stage", "ranks", "offload", "device", "bytes_per_parameter"),
    [
        (torch.float32, 0, 4, False, "cuda", 4 + 4 + 8),
        (torch.bfloat16, 1, 4, False, "cuda", 2 + 4 + 12 / 4),
        (torch.bfloat16, 2, 4, False, "cuda", 2 + 4 / 4 + 12 / 4),
        (torch.bfloat16, 3, 4, False, "cuda", (2 + 4 + 12) / 4),
        (torch.bfloat16, 3, 4, True, "cuda", 2 / 4),
        (torch.bfloat16, 3, 4, True, "cpu", (2 + 4 + 12) / 4),  # the host's memory is the device's
    ],
)
def test_the_state_of_a_rank(dtype, stage, ranks, offload, device, bytes_per_parameter):
    model = cut_model(dtype)
    parameters = sum(p.numel() for p in model.parameters())
    engine = SimpleNamespace(
        module=model, zero_optimization_stage=lambda: stage, zero_use_cpu_optimizer=lambda: offload,
        zero_max_live_parameters=lambda: 1000, device=torch.device(device),
    )  # fmt: skip
    assert activations.state_bytes(engine, ranks) == parameters * bytes_per_parameter
    gathered = 1000 * dtype.itemsize if stage == 3 else 0
    assert activations.working_bytes(engine) == gathered + 50 * 32 * (4 + dtype.itemsize)
