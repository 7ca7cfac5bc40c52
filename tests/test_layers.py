"""Split and checkpointed layers: the same gradients, for each family of models, and no more work or memory than due."""

from __future__ import annotations

import copy

import pytest
import rank_equality as worker
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from cut_dist.data.packing import PackedBatch, example_weights, pack_examples
from cut_dist.model import attention
from cut_dist.model.attention import PACKED, Segments
from cut_dist.model.head import CutModel
from cut_dist.model.layers import LayerForward, decoder_layers, replace_forwards
from cut_dist.model.supported import check_config

SIZES = {**worker.SIZES, "tie_word_embeddings": False, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
# windows are shorter than most of the examples
FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8, "sliding_window_pattern": 2},
    "phi3": {},
    "olmo2": {},
    "gpt_neox": {},
    "mixtral": {"num_local_experts": 4, "experts_implementation": "eager"},
}
CFG = worker.make_config(0, "fake", 2000, "example_mean")


def make_model(family: str = "llama", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family], use_cache=False, attn_implementation=PACKED)
    check_config(config)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).train()


def make_batch(contrast: str = "fake") -> PackedBatch:
    examples = worker.make_examples()
    return pack_examples(examples, example_weights(examples, "example_mean"), contrast)


def cut_model(causal_lm: PreTrainedModel, *, split: bool, checkpointed: bool) -> CutModel:
    replace_forwards(causal_lm, split=split, checkpointed=checkpointed)
    return CutModel(causal_lm, lam=1.05, alpha=0.7, gamma=0.5, attention="sdpa")


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_split_layers_give_the_gradients_of_a_forward_for_each_context(family, checkpointed):
    """In float64 against transformers' own eager attention, unpacked: positions, windows and segments all count."""
    causal_lm = make_model(family, torch.float64)
    causal_lm.set_attn_implementation("eager")
    want_loss = worker.loss_by_contexts(causal_lm, worker.make_examples(), CFG)
    want_loss.backward()
    want = gradients(causal_lm)
    causal_lm.set_attn_implementation(PACKED)
    loss = cut_model(causal_lm, split=True, checkpointed=checkpointed)(make_batch()).loss
    loss.backward()
    assert loss.item() == pytest.approx(want_loss.item(), rel=1e-6)  # the loss is summed in float32
    got = gradients(causal_lm)
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-6, atol=1e-6 * want[name].abs().max().item())


@pytest.mark.parametrize("contrast", ["fake", "instruction"])
def test_neither_the_split_nor_checkpointing_changes_a_gradient(contrast):
    base, found = make_model(), {}
    for split in (False, True):
        for checkpointed in (False, True):
            causal_lm = copy.deepcopy(base)
            cut_model(causal_lm, split=split, checkpointed=checkpointed)(make_batch(contrast)).loss.backward()
            found[split, checkpointed] = gradients(causal_lm)
    for name, plain in found[False, False].items():
        split = found[True, False][name]
        torch.testing.assert_close(split, plain, rtol=1e-6, atol=1e-8)
        # a layer that is computed twice gives the same bits
        assert torch.equal(found[False, True][name], plain) and torch.equal(found[True, True][name], split)


def test_the_fake_part_is_computed_once_and_without_a_gradient(monkeypatch):
    calls = []
    sdpa = attention.BACKENDS["sdpa"]

    def recorded(query, *args):
        calls.append((query.shape[2], query.requires_grad))
        return sdpa(query, *args)

    monkeypatch.setitem(attention.BACKENDS, "sdpa", recorded)
    batch = make_batch()
    fake = sum(batch.segment_lengths[-batch.num_no_grad_segments :])
    gradient = batch.num_tokens - fake
    model = cut_model(make_model(), split=True, checkpointed=True)
    loss = model(batch).loss
    assert calls == [(gradient, True), (fake, False)] * 2
    calls.clear()
    loss.backward()
    assert calls == [(gradient, True)] * 2, "the backward computes each layer's gradient part again, and nothing else"
    calls.clear()
    with torch.no_grad():
        model(batch)
    assert calls == [(batch.num_tokens, False)] * 2, "an evaluation has no parts"


@pytest.mark.parametrize("checkpointed", [False, True])
def test_autograd_keeps_nothing_of_the_fake_tokens(checkpointed):
    """As many bytes as for the same batch without fake contexts, which has the same gradient tokens."""
    with_fake, without = (kept_bytes(make_batch(contrast), checkpointed) for contrast in ("fake", "instruction"))
    assert with_fake == without > 0


def kept_bytes(batch: PackedBatch, checkpointed: bool) -> int:
    """Bytes of all that autograd keeps in the decoder's layers, less weights and rotations."""
    causal_lm = make_model()
    model = cut_model(causal_lm, split=True, checkpointed=checkpointed)
    kept, rotations, inside = {}, set(), []

    def enter(module, args, kwargs):
        inside.append(True)
        rotations.update(x.untyped_storage().data_ptr() for x in kwargs["position_embeddings"])

    for layer in decoder_layers(causal_lm):
        layer.register_forward_pre_hook(enter, with_kwargs=True)
        layer.register_forward_hook(lambda *_: inside.clear())

    def keep(x):
        if inside:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = model(batch)
    assert out.loss.requires_grad  # all that was kept is still there
    weights = {p.untyped_storage().data_ptr() for p in causal_lm.parameters()}
    return sum(n for at, n in kept.items() if at not in weights | rotations)


def test_a_deep_copy_computes_with_its_own_weights():
    causal_lm = make_model()
    replace_forwards(causal_lm, split=True, checkpointed=False)
    twin = copy.deepcopy(causal_lm)
    with torch.no_grad():
        for p in causal_lm.parameters():
            p.zero_()
    assert all(layer.forward.layer is layer for layer in decoder_layers(twin))
    assert twin(torch.arange(5)[None]).logits.abs().max() > 0


def test_what_cannot_be_split_by_tokens_is_refused_with_the_remedy():
    layer = torch.nn.Identity()
    segments = Segments(torch.tensor([0, 3, 5], dtype=torch.int32), (3, 2), "sdpa", num_no_grad=1)
    hidden, bias = torch.zeros(1, 5, 4), torch.zeros(1, 1, 5, 5)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 5, 5\).*model.context_split=off"):
        LayerForward(layer, split=True, checkpointed=False)(hidden, attention_bias=bias, segments=segments)
