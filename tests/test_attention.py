from __future__ import annotations

import sys

import pytest
import torch

from cut_dist.model import attention
from cut_dist.model.attention import Segments, choose_backend, packed_attention

LENGTHS = (5, 1, 7, 3)


def inputs(heads: int = 4, kv_heads: int = 2, dim: int = 8):
    generator = torch.Generator().manual_seed(0)
    total = sum(LENGTHS)
    q = torch.randn(1, heads, total, dim, generator=generator, dtype=torch.float64)
    k, v = (torch.randn(1, kv_heads, total, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    cu = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
    return q, k, v, Segments(cu, LENGTHS, "sdpa")


def by_hand(q, k, v, window: int | None) -> torch.Tensor:
    """Softmax attention over the whole row under a mask of (same segment, not later, not too long ago)."""
    segment = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    i = torch.arange(len(segment))
    allowed = (segment[:, None] == segment[None]) & (i[:, None] >= i[None])
    if window is not None:
        allowed &= i[:, None] - i[None] < window
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
    return (scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 4, 100])
def test_sdpa_by_segment(window):
    q, k, v, segments = inputs()
    out, _ = packed_attention(torch.nn.Identity(), q, k, v, None, segments=segments, sliding_window=window)
    torch.testing.assert_close(out, by_hand(q, k, v, window))


def test_features_that_would_be_lost_are_refused():
    q, k, v, segments = inputs()
    with pytest.raises(ValueError, match="softcap"):
        packed_attention(torch.nn.Identity(), q, k, v, None, segments=segments, softcap=30.0)
    with pytest.raises(ValueError, match="attention dropout"):
        packed_attention(torch.nn.Identity(), q, k, v, None, segments=segments, dropout=0.1)


def test_choice_of_backend(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_backend("auto", cpu, torch.bfloat16) == "sdpa"
    assert choose_backend("auto", cuda, torch.float32) == "sdpa"
    with pytest.raises(ValueError, match="model.attention=flash needs CUDA"):
        choose_backend("flash", cpu, torch.bfloat16)
    monkeypatch.setattr(attention, "_has_flash", lambda: True)
    assert choose_backend("auto", cuda, torch.bfloat16) == "flash"
    monkeypatch.setattr(attention, "_has_flash", lambda: False)
    assert choose_backend("auto", cuda, torch.bfloat16) == "varlen"
    with pytest.raises(ValueError, match=r"cut-dist\[flash\]"):
        choose_backend("flash", cuda, torch.bfloat16)


def test_a_flash_attn_that_was_built_for_another_torch_is_not_taken(tmp_path, monkeypatch, caplog):
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    attention._has_flash.cache_clear()
    assert choose_backend("auto", torch.device("cuda"), torch.bfloat16) == "varlen"
    attention._has_flash.cache_clear()
    assert "undefined symbol" in caplog.text


@pytest.mark.parametrize("knows_groups", [True, False])
def test_grouped_heads_with_and_without_a_varlen_kernel_that_knows_them(monkeypatch, knows_groups):
    """torch 2.11 has the kernel without `enable_gqa`."""
    asked = []

    def kernel(q, k, v, *lengths, scale, window_size, enable_gqa=False):
        asked.append(enable_gqa)
        assert enable_gqa or k.shape == v.shape == q.shape
        segments = Segments(lengths[0], LENGTHS, "sdpa")
        heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
        return attention.BACKENDS["sdpa"](*heads_first, segments, scale, None)[0]

    def older(q, k, v, *lengths, scale, window_size):
        return kernel(q, k, v, *lengths, scale=scale, window_size=window_size)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel if knows_groups else older)
    monkeypatch.setattr(attention, "_varlen_parameters", attention._varlen_parameters.__wrapped__)  # not the cached
    q, k, v, segments = inputs()
    segments = Segments(segments.cu_seqlens, LENGTHS, "varlen")
    out, _ = packed_attention(torch.nn.Identity(), q, k, v, None, segments=segments)
    torch.testing.assert_close(out, by_hand(q, k, v, None))
    assert asked == [knows_groups]


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 4])
def test_varlen_on_a_gpu(window):
    q, k, v, segments = inputs(dim=64)
    q, k, v = (x.cuda().bfloat16() for x in (q, k, v))
    segments = Segments(segments.cu_seqlens.cuda(), LENGTHS, "varlen")
    out, _ = packed_attention(torch.nn.Identity(), q, k, v, None, segments=segments, sliding_window=window)
    want = by_hand(q.cpu().double(), k.cpu().double(), v.cpu().double(), window)
    torch.testing.assert_close(out.cpu().double(), want, atol=2e-2, rtol=2e-2)
