"""FLOPs against real models' weights and against a count by hand, peaks by device name, MFU, memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from cut_dist import throughput
from cut_dist.throughput import (
    ModelShape,
    causal_pairs,
    forward_flops,
    mfu,
    model_shape,
    peak_flops,
)

TINY = {
    "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 101, "pad_token_id": 0, "head_dim": 8,
}  # fmt: skip


@pytest.mark.parametrize("family", sorted(throughput._GATED_DECODERS))
def test_the_formula_counts_the_matrices_of_every_family_in_the_table(family):
    try:
        config = AutoConfig.for_model(family, **TINY)
    except ValueError:
        pytest.skip(f"this transformers has no {family}")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    matrices = {
        name: weight.numel()
        for name, weight in model.named_parameters()
        if weight.dim() == 2 and "embed" not in name and "lm_head" not in name
    }
    assert model_shape(config).matmul_parameters == sum(matrices.values()), matrices


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "opt"])
def test_other_families_are_unknown_rather_than_wrong(family):
    assert model_shape(AutoConfig.for_model(family)) is None


def test_forward_is_what_torch_counts():
    config = LlamaConfig(**TINY, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config)
    length = 24
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones(1, length, dtype=torch.long))
    # Eager attention multiplies the masked pairs too: length² of them, where causal work needs length·(length+1)/2.
    shape = model_shape(config)
    counted = forward_flops(shape, tokens=length, pairs=length**2, head_rows=length)
    assert counter.get_total_flops() == pytest.approx(counted, rel=1e-3)


def test_a_count_by_hand():
    # One layer, D=2, one head of size 2, F=3, V=5: q, k, v, o are 4 weights each, the MLP 3·2·3 = 18; 34 in all.
    shape = ModelShape(layers=1, hidden=2, heads=1, kv_heads=1, head_dim=2, intermediate=3, vocab=5)
    assert shape.matmul_parameters == 34
    # Segments of 3 and 2 tokens: 6 + 3 pairs at 4·2 FLOPs; 5 tokens at 2·34; 4 head rows at 2·2·5.
    assert causal_pairs([3, 2]) == 9
    assert forward_flops(shape, tokens=5, pairs=9, head_rows=4) == 5 * 68 + 9 * 8 + 4 * 20


def test_llama2_13b_is_about_twice_its_parameters_a_forward():
    config = LlamaConfig(
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=40,
        num_attention_heads=40,
        vocab_size=32000,
    )
    shape = model_shape(config)
    weights = shape.matmul_parameters + 5120 * 32000
    assert weights == pytest.approx(12.85e9, rel=1e-3)
    assert forward_flops(shape, tokens=1, pairs=1, head_rows=1) == pytest.approx(2 * weights, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA H20", 148.0),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA L40", 181.05),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA RTX 6000 Ada Generation", 364.25),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GB200", 2500.0),
        ("AMD Instinct MI300X", 1307.4),
    ],
)
def test_peaks_by_the_drivers_names(name, tera):
    assert peak_flops(name) == tera * 1e12


@pytest.mark.parametrize(
    "name", ["Tesla V100-SXM2-16GB", "NVIDIA GeForce GTX 1080", "cpu", "", "H1000", "RTX 40900"]
)
def test_unknown_devices_have_no_peak(name):
    assert peak_flops(name) is None


def test_mfu():
    assert mfu(4e15, 2.0, world_size=4, peak=1e15) == pytest.approx(0.5)
    assert mfu(4e15, 2.0, world_size=4, peak=None) is None
    assert mfu(4e15, 0.0, world_size=4, peak=1e15) is None


def test_memory_on_the_host_grows_with_what_is_held():
    before = throughput.memory_stats(torch.device("cpu"))
    held = torch.ones(64 * 2**20 // 4)
    after = throughput.memory_stats(torch.device("cpu"))
    assert after["memory/rss_gib"] - before["memory/rss_gib"] > 0.05, held.shape
    assert after["memory/peak_rss_gib"] >= after["memory/rss_gib"] * 0.99 > 0


@pytest.mark.gpu
def test_memory_on_a_device():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda", 0)
    held = torch.empty(2**28, dtype=torch.uint8, device=device)
    stats = throughput.memory_stats(device)
    assert stats["memory/peak_reserved_gib"] >= stats["memory/peak_allocated_gib"] >= 0.25, held.shape
    assert (
        peak_flops(torch.cuda.get_device_name(device)) is None
        or peak_flops(torch.cuda.get_device_name(device)) > 5e13
    )
