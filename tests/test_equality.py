"""Loss and gradients are those of the global batch, however it is packed, split, accumulated and partitioned."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import rank_equality as worker
import torch

from cut_dist.data.packing import CONTRASTS, example_weights, pack_examples
from cut_dist.model.head import CutModel
from cut_dist.model.load import load_causal_lm

CHECKPOINTING = ("none", "selective", "full")
# stage:contrast:micro_batch_tokens:reduction:context_split:checkpointing; 2000 tokens are one micro-batch, fewer are
# four on one rank
SETTINGS = [
    *(":".join(("0:fake:200:example_mean", *layers)) for layers in product(("auto", "off"), CHECKPOINTING)),
    *(":".join(("3:fake:200:example_mean", *layers)) for layers in product(("auto", "off"), CHECKPOINTING)),
    "0:fake:2000:example_mean:auto:full",
    "1:fake:200:example_mean:auto:none",
    "2:fake:200:example_mean:auto:full",
    "3:fake:2000:example_mean:auto:full",
    "3:instruction:150:token_mean:auto:full",
]


@cache
def expected(contrast: str, reduction: str) -> tuple[float, dict[str, torch.Tensor]]:
    """The same in float64: every context of every example its own forward, the reference loss, plain autograd."""
    cfg = worker.make_config(0, contrast, 1, reduction, "off", "none")
    model = load_causal_lm(cfg.model, dtype=torch.float32, seed=cfg.seed).double()
    model.set_attn_implementation("eager")
    loss = worker.loss_by_contexts(model, worker.make_examples(), cfg)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


def relative_error(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> float:
    """The largest error of a gradient's elements, relative to that gradient's largest element."""
    assert got.keys() == want.keys()
    return max(((got[k].double() - want[k]).abs().max() / want[k].abs().max()).item() for k in want)


@pytest.fixture(scope="module")
def measured(run_ranks, tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("equality")
    for world_size in (1, 2):
        run_ranks([worker.__file__, str(folder), *SETTINGS], world_size)
    return {path.stem: torch.load(path) for path in folder.iterdir()}


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("setting", SETTINGS)
def test_ranks_stages_and_accumulation_give_the_global_batch(measured, setting, world_size):
    got = measured[f"{setting.replace(':', '_')}@{world_size}"]
    _, contrast, tokens, reduction, _, checkpointing = setting.split(":")
    loss, gradients = expected(contrast, reduction)
    assert got["loss"] == pytest.approx(loss, rel=1e-5)
    assert relative_error(got["gradients"], gradients) < 1e-5
    norm = torch.stack([g.norm() for g in gradients.values()]).norm().item()
    assert got["norm"] == pytest.approx(norm, rel=1e-5)
    accumulated = {1: 4, 2: 2}[world_size]
    assert got["micro_batches"] == (1 if tokens == "2000" else accumulated)
    selective = [world_size == 2, False]  # the rank with the least memory decides for all
    assert got["checkpointed"] == {"none": [False] * 2, "full": [True] * 2, "selective": selective}[checkpointing]


@pytest.mark.distributed
@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting[0] == "3"])
def test_zero_3_gathers_a_layer_once_for_the_forward_and_once_for_the_backward(measured, setting):
    """Both parts of a split row, and a recomputation, included; the first step and those after the first."""
    got = measured[f"{setting.replace(':', '_')}@2"]
    for counts in got["gathers"]:
        of_layers = {name: n / got["micro_batches"] for name, n in counts.items() if ".layers." in name}
        assert of_layers == {name: 2 for name in got["gradients"] if ".layers." in name}
        assert counts["model.norm.weight"] == 2 * got["micro_batches"]
        # tied: a turn as the embedding and one as the head, each with a backward for which DeepSpeed brings it again
        assert counts["model.embed_tokens.weight"] <= 4 * got["micro_batches"]


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("pieces", ["all", "one_by_one"])
def test_packed_equals_unpacked_and_three_forwards(contrast, pieces):
    """One packed forward, or one for each example, against one forward for each context (paper eq. 5 to 7)."""
    cfg = worker.make_config(0, contrast, 1, "example_mean")
    model = load_causal_lm(cfg.model, dtype=torch.float32, seed=cfg.seed)
    cut = CutModel(model, lam=cfg.objective.lam, alpha=cfg.objective.alpha, gamma=cfg.objective.gamma, attention="sdpa")
    examples = worker.make_examples()
    weights = example_weights(examples, "example_mean")
    groups = [list(range(len(examples)))] if pieces == "all" else [[i] for i in range(len(examples))]
    total = 0.0
    for group in groups:
        out = cut(pack_examples([examples[i] for i in group], [weights[i] for i in group], contrast))
        out.loss.backward()
        total += out.loss.item()
    loss, gradients = expected(contrast, "example_mean")
    assert total == pytest.approx(loss, rel=1e-5)
    assert relative_error({name: p.grad for name, p in model.named_parameters()}, gradients) < 1e-5
