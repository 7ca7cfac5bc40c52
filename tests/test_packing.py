from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cut_dist.data.examples import Example
from cut_dist.data.packing import (
    example_tokens,
    example_weights,
    pack_examples,
    plan_micro_batches,
    rank_micro_batches,
)


def example(name: str, instruction: int, response: int, judgment: int = 0, base: int = 0) -> Example:
    """Token ids that say where they come from: base + 0.. for prompts, base + 1000.. for the response."""
    prompts = {"instruction": np.arange(base, base + instruction, dtype=np.int32)}
    if judgment:
        prompts["authentic"] = np.arange(base, base + instruction + judgment, dtype=np.int32)
        prompts["fake"] = np.arange(base, base + instruction + 2, dtype=np.int32)
    return Example(name, judgment > 0, prompts, np.arange(base + 1000, base + 1000 + response, dtype=np.int32))


EXAMPLES = [
    example("p", 3, 2),
    example("n", 4, 3, judgment=5, base=100),
    example("m", 2, 1, judgment=3, base=200),
]


def test_rows_predict_the_labels_in_every_context():
    batch = pack_examples(EXAMPLES, [1.0, 2.0, 3.0], "fake")
    tokens = batch.input_ids[0].tolist() + [None]
    assert batch.labels.tolist() == [1100, 1101, 1102, 1200, 1000, 1001]  # Align-N first
    assert batch.examples == (1, 2, 0)
    assert batch.row_counts == (3, 1, 2)
    assert batch.token_weight.tolist() == [2, 2, 2, 3, 1, 1]
    ends = set(batch.cu_seqlens.tolist())
    for rows, labels in (
        (batch.rows_instruction, batch.labels),
        (batch.rows_authentic, batch.labels[:4]),
        (batch.rows_fake, batch.labels[:4]),
    ):
        for row, label in zip(rows.tolist(), labels.tolist()):
            # the next token of the segment is the label, unless the segment ends there
            assert tokens[row + 1] == label or row + 1 in ends


def test_segments_lie_end_to_end_without_padding():
    batch = pack_examples(EXAMPLES, [1.0] * 3, "fake")
    # instruction n, m, p; authentic n, m; fake n, m: prompt + response - 1
    assert batch.segment_lengths == (6, 2, 4, 11, 5, 8, 4)
    assert batch.cu_seqlens.tolist() == [0, 6, 8, 12, 23, 28, 36, 40]
    assert batch.num_tokens == 40
    assert batch.num_no_grad_segments == 2
    assert batch.position_ids[0].tolist() == [i for n in batch.segment_lengths for i in range(n)]


def test_contrast_instruction_has_no_fake_context():
    batch = pack_examples(EXAMPLES, [1.0] * 3, "instruction")
    assert batch.rows_fake is None
    assert batch.num_no_grad_segments == 0
    assert batch.segment_lengths == (6, 2, 4, 11, 5)
    assert batch.num_tokens == sum(example_tokens(e, "instruction") for e in EXAMPLES)


def test_only_align_p():
    batch = pack_examples(EXAMPLES[:1], [1.0], "fake")
    assert batch.rows_authentic.shape == (0,) and batch.rows_fake.shape == (0,)
    assert batch.rows_authentic.dtype == torch.int64


def test_weights_sum_to_one():
    for reduction in ("example_mean", "token_mean"):
        weights = example_weights(EXAMPLES, reduction)
        assert sum(w * len(e.response_ids) for w, e in zip(weights, EXAMPLES)) == pytest.approx(1)
    assert len(set(example_weights(EXAMPLES, "token_mean"))) == 1


@settings(deadline=None, max_examples=200)
@given(
    costs=st.lists(st.integers(1, 500), min_size=1, max_size=40),
    world_size=st.integers(1, 8),
    budget=st.integers(1, 2000),
)
def test_plan_deals_every_example_once_and_keeps_the_budget(costs, world_size, budget):
    plan = plan_micro_batches(costs, world_size, budget)
    assert all(len(bins) == world_size for bins in plan)
    dealt = sorted(i for bins in plan for members in bins for i in members)
    assert dealt == list(range(len(costs)))
    for bins in plan:
        for members in bins:
            assert sum(costs[i] for i in members) <= budget or len(members) == 1


def test_plan_is_balanced():
    costs = np.random.default_rng(0).integers(50, 700, 64).tolist()
    plan = plan_micro_batches(costs, world_size=8, token_budget=4000)
    loads = [sum(costs[i] for i in members) for bins in plan for members in bins]
    assert max(loads) < 1.1 * np.mean(loads)


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 12), world_size=st.integers(1, 5), budget=st.integers(20, 300), seed=st.integers(0, 99))
def test_every_rank_gets_as_many_micro_batches_and_all_weight_arrives(count, world_size, budget, seed):
    rng = np.random.default_rng(seed)
    examples = [
        example(str(i), int(rng.integers(1, 30)), int(rng.integers(1, 40)), int(rng.integers(0, 2)) * 7)
        for i in range(count)
    ]
    batches = [
        rank_micro_batches(examples, contrast="fake", reduction="example_mean", rank=rank, world_size=world_size,
                           token_budget=budget)
        for rank in range(world_size)
    ]  # fmt: skip
    assert len({len(own) for own in batches}) == 1
    assert sum(float(b.token_weight.double().sum()) for own in batches for b in own) == pytest.approx(1, rel=1e-6)
    assert sorted(i for own in batches for b in own for i in b.examples) == list(range(count))


def test_a_rank_without_work_computes_a_filler_of_weight_zero():
    share = {"rank": 1, "world_size": 2, "token_budget": 99}
    [filler] = rank_micro_batches(EXAMPLES[:1], contrast="fake", reduction="example_mean", **share)
    assert filler.num_tokens > 0
    assert filler.token_weight.sum() == 0
    assert filler.examples == () and filler.row_counts == ()
