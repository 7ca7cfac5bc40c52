"""Loss and gradients are those of the global batch, however it is packed, split, accumulated and partitioned."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from cut_dist.data.packing import CONTRASTS, example_weights, pack_examples
from cut_dist.kernels.cut_loss import cut_token_loss_reference
from cut_dist.model.head import CutModel
from cut_dist.model.load import load_causal_lm

spec = importlib.util.spec_from_file_location("rank_equality", Path(__file__).with_name("rank_equality.py"))
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

# stage:contrast:micro_batch_tokens:reduction; 2000 tokens are one micro-batch, fewer are four on one rank
SETTINGS = [
    "0:fake:2000:example_mean",
    "0:fake:200:example_mean",
    "1:fake:200:example_mean",
    "2:fake:200:example_mean",
    "3:fake:2000:example_mean",
    "3:fake:200:example_mean",
    "3:instruction:150:token_mean",
]


def expected(setting: str) -> tuple[float, dict[str, torch.Tensor]]:
    """The same in float64: every context of every example its own forward, the reference loss, plain autograd."""
    _, contrast, _, reduction = setting.split(":")
    cfg = worker.make_config(0, contrast, 1, reduction)
    model = load_causal_lm(cfg.model, dtype=torch.float32, seed=cfg.seed).double()
    model.set_attn_implementation("eager")
    examples = worker.make_examples()
    total = torch.zeros((), dtype=torch.float64)
    for example, weight in zip(examples, example_weights(examples, reduction)):
        response = torch.from_numpy(example.response_ids).long()
        logits = {}
        for context in CONTRASTS[contrast] if example.is_negative else ("instruction",):
            prompt = torch.from_numpy(example.prompt_ids[context]).long()
            out = model(torch.cat([prompt, response])[None]).logits[0]
            logits[context] = out[len(prompt) - 1 : -1]
        loss = cut_token_loss_reference(
            logits["instruction"], logits.get("authentic", logits["instruction"]), logits.get("fake"), response,
            lam=cfg.objective.lam, alpha=cfg.objective.alpha, gamma=cfg.objective.gamma,
            is_negative=torch.full((len(response),), example.is_negative),
            token_weight=torch.full((len(response),), weight, dtype=torch.float64),
        )  # fmt: skip
        total = total + loss.loss
    total.backward()
    return total.item(), {name: p.grad for name, p in model.named_parameters()}


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
    loss, gradients = expected(setting)
    assert got["loss"] == pytest.approx(loss, rel=1e-5)
    assert relative_error(got["gradients"], gradients) < 1e-5
    norm = torch.stack([g.norm() for g in gradients.values()]).norm().item()
    assert got["norm"] == pytest.approx(norm, rel=1e-5)
    accumulated = {1: 4, 2: 2}[world_size]
    assert got["micro_batches"] == (1 if setting.split(":")[2] == "2000" else accumulated)


@pytest.mark.parametrize("setting", ["0:fake:1:example_mean", "0:instruction:1:example_mean"])
@pytest.mark.parametrize("pieces", ["all", "one_by_one"])
def test_packed_equals_unpacked_and_three_forwards(setting, pieces):
    """One packed forward, or one for each example, against one forward for each context (paper eq. 5 to 7)."""
    cfg = worker.make_config(0, setting.split(":")[1], 1, "example_mean")
    model = load_causal_lm(cfg.model, dtype=torch.float32, seed=cfg.seed)
    cut = CutModel(model, lam=cfg.objective.lam, alpha=cfg.objective.alpha, gamma=cfg.objective.gamma, attention="sdpa")
    examples = worker.make_examples()
    weights = example_weights(examples, "example_mean")
    groups = [list(range(len(examples)))] if pieces == "all" else [[i] for i in range(len(examples))]
    total = 0.0
    for group in groups:
        out = cut(pack_examples([examples[i] for i in group], [weights[i] for i in group], cfg.objective.contrast))
        out.loss.backward()
        total += out.loss.item()
    loss, gradients = expected(setting)
    assert total == pytest.approx(loss, rel=1e-5)
    assert relative_error({name: p.grad for name, p in model.named_parameters()}, gradients) < 1e-5
