"""The paper's other methods: what they learn of each row, and their losses and gradients against plain autograd."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from head_cases import assert_same, evaluate, from_whole_logits, random_inputs
from local_models import SIZES
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from cut_dist.config import ConfigError, DataConfig, PreviewJobConfig
from cut_dist.config_compose import compose_config
from cut_dist.data.packing import PackedPairs, rank_micro_batches
from cut_dist.data.prepare import prepare
from cut_dist.data.templates import render_judge_prompt, render_prompt
from cut_dist.data.triplets import BadRowsError
from cut_dist.kernels.fused_linear_cut import fused_linear_cut
from cut_dist.model.attention import choose_backend
from cut_dist.model.head import CutModel
from cut_dist.model.tiny import byte_tokenizer
from cut_dist.preview import job
from cut_dist.step_stats import SUMS, micro_batch_sums

OTHERS = ("sft", "hindsight", "forward_prediction", "ilf_mle", "ilf_dpo")
ROWS = [
    {"id": f"t{n}", "instruction": f"Greet guest {n}.", "response": "hello there" if n % 3 else "bang",
     "judgment": None if n % 3 else "It is rude.", "refinement": None if n % 3 else f"welcome {n}"}
    for n in range(12)
]  # fmt: skip
BETA = 0.3


def write(folder, rows=ROWS):
    path = folder / "triplets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prepared(folder, objective, rows=ROWS, **config):
    cfg = DataConfig(path=str(write(folder, rows)), cache_dir=str(folder / "cache"), **config)
    return prepare(cfg, byte_tokenizer(), seed=0, fake_judgment="Perfect.", objective=objective)


def terms_by_hand(objective: str, row: dict) -> list[tuple[str, str]]:
    """(prompt, reply) texts, by the equations of the paper's section 3.2."""
    x, y, j = row["instruction"], row["response"], row["judgment"]
    plain = render_prompt(None, "alpaca", x)
    return {
        "sft": [] if j else [(plain, y)],
        "hindsight": [(render_prompt(None, "alpaca", x, j), y)],
        "forward_prediction": [(plain, y), (render_judge_prompt(None, "alpaca", x, y), f" {j or 'Perfect.'}")],
        "ilf_mle": [(plain, row["refinement"] if j else y)],
        "ilf_dpo": [(plain, row["refinement"]), (plain, y)] if j else [],
    }[objective]


@pytest.mark.parametrize("objective", OTHERS)
def test_what_is_learned_of_each_row_from_the_cache_too(tmp_path, objective):
    tokenizer = byte_tokenizer()
    for _ in range(2):  # made, then read
        data = prepared(tmp_path, objective, heldout_size=4)
        by_id = {row["id"]: row for row in ROWS}
        for example in data.train + data.heldout_own:
            expected = [
                ([tokenizer.bos_token_id, *prompt.encode()], [*reply.encode(), tokenizer.eos_token_id])
                for prompt, reply in terms_by_hand(objective, by_id[example.id])
            ]
            got = [(t.prompt_ids["instruction"].tolist(), t.response_ids.tolist()) for t in example.terms]
            assert got == expected and not any(t.is_negative or len(t.prompt_ids) > 1 for t in example.terms)
    cut = prepared(tmp_path, "cut", heldout_size=4)
    assert [e.id for e in data.heldout] == [e.id for e in cut.heldout], "all methods are measured on the same rows"
    assert any("authentic" in e.prompt_ids for e in data.heldout)
    learned = [e.id for e in cut.train if terms_by_hand(objective, by_id[e.id])]
    assert [e.id for e in data.train] == learned
    counts = data.counts
    assert counts["left_out_by_objective"] == len(cut.train) - len(learned) == 8 - counts["train"]
    assert counts["align_n"] + counts["align_p"] == counts["train"]
    assert counts["align_n"] == (0 if objective == "sft" else cut.counts["align_n"])
    assert data.content_hash != cut.content_hash


@pytest.mark.parametrize("objective", ["ilf_mle", "ilf_dpo"])
def test_a_row_without_refinement_is_named_with_the_command_that_makes_one(tmp_path, objective):
    rows = [{**row, "refinement": " "} if row["id"] == "t3" else row for row in ROWS]
    with pytest.raises(BadRowsError, match=r"(?s)triplets.jsonl:4 +no refinement.*python launch/refine.py") as caught:
        prepared(tmp_path, objective, rows)
    assert len(caught.value.rejects) == 1
    assert prepared(tmp_path, objective, rows, on_bad_row="skip").counts["rejected"] == 1
    assert prepared(tmp_path, "cut", rows).counts["rejected"] == 0


def test_an_id_made_of_the_content_outlives_the_refinement(tmp_path):
    nameless = [{key: value for key, value in row.items() if key != "id"} for row in ROWS]
    bare = [{key: value for key, value in row.items() if key != "refinement"} for row in nameless]
    ids = [[example.id for example in prepared(tmp_path, "cut", rows).train] for rows in (nameless, bare)]
    assert ids[0] == ids[1]


def test_praise_and_beta_are_checked():
    with pytest.raises(ConfigError, match="objective=forward_prediction teaches it"):
        compose_config("train", ["objective=forward_prediction", "objective.contrast=instruction",
                                 "objective.fake_judgment=' '"])  # fmt: skip
    with pytest.raises(ConfigError, match="objective.beta"):
        compose_config("train", ["objective=ilf_dpo", "objective.beta=0"])


def plain_logp(model: LlamaForCausalLM, example) -> torch.Tensor:
    prompt = torch.from_numpy(example.prompt_ids["instruction"]).long()
    response = torch.from_numpy(example.response_ids).long()
    logits = model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, response[:, None])[:, 0]


def by_hand(model, examples, objective: str, reduction: str) -> torch.Tensor:
    if objective == "ilf_dpo":
        losses = []
        for pair in examples:
            chosen, rejected = (plain_logp(model, term).sum() for term in pair.terms)
            losses.append(-F.logsigmoid(BETA * (chosen - rejected - pair.reference_margin)))
        return torch.stack(losses).mean()
    loss = 0
    for kind in zip(*(example.terms for example in examples)):
        logps = [plain_logp(model, term) for term in kind]
        loss -= torch.cat(logps).mean() if reduction == "token_mean" else torch.stack([x.mean() for x in logps]).mean()
    return loss


@pytest.mark.parametrize("reduction", ["example_mean", "token_mean"])
@pytest.mark.parametrize("objective", OTHERS)
def test_loss_and_gradient_are_those_of_the_formula(tmp_path, objective, reduction):
    """In float64 (shares are float32), several micro-batches and two ranks against whole logits."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).double()
    examples = prepared(tmp_path, objective).train[:5]
    examples = [replace(e, reference_margin=8.0 * n - 35) for n, e in enumerate(examples)]
    expected = by_hand(model, examples, objective, reduction)
    expected.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    backend = choose_backend("auto", torch.device("cpu"), torch.float64)
    wrapped = CutModel(model, lam=1.1, alpha=1.0, gamma=1.0, attention=backend)
    total, sums = 0.0, torch.zeros(len(SUMS), dtype=torch.float64)
    batches = [
        batch
        for rank in range(2)
        for batch in rank_micro_batches(
            examples, contrast="fake", reduction=reduction, rank=rank, world_size=2, token_budget=500,
            beta=BETA if objective == "ilf_dpo" else None,
        )
    ]  # fmt: skip
    assert len(batches) > 1
    for batch in batches:
        out = wrapped(batch)
        out.loss.backward()
        total += out.loss.item()
        sums += micro_batch_sums(batch, out, alpha=1.0, gamma=1.0, shape=None)
    assert total == pytest.approx(expected.item(), rel=1e-6)
    for name, parameter in wrapped.causal_lm.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-5, atol=1e-8)
    named = dict(zip(SUMS, sums.tolist()))
    assert named["examples"] == len(examples) and named["loss"] == pytest.approx(expected.item(), rel=1e-6)
    if objective == "ilf_dpo":
        assert named["pairs"] == len(examples) and named["loss/align_p"] == 0
        with torch.no_grad():
            logps = [[plain_logp_of(wrapped, term) for term in pair.terms] for pair in examples]
        margins = [BETA * (c - r - pair.reference_margin) for (c, r), pair in zip(logps, examples)]
        assert named["reward_margin"] == pytest.approx(sum(margins), rel=1e-5)
        assert named["reward_accuracy"] == sum(m > 0 for m in margins) not in (0, len(examples))


def plain_logp_of(wrapped: CutModel, term) -> float:
    return plain_logp(wrapped.causal_lm, term).sum().item()


def test_a_pair_stays_in_one_micro_batch_and_a_filler_weighs_nothing(tmp_path):
    examples = prepared(tmp_path, "ilf_dpo").train
    seen = []
    for rank in range(3):
        batches = rank_micro_batches(
            examples, contrast="fake", reduction="example_mean", rank=rank, world_size=3, token_budget=300, beta=BETA
        )
        for batch in batches:
            assert isinstance(batch, PackedPairs)
            assert batch.examples[::2] == batch.examples[1::2]
            assert len(batch.pair_weight) == max(1, len(batch.examples) // 2)
            assert batch.pair_weight.sum() == pytest.approx(len(batch.examples) / 2 / len(examples))
            seen += batch.examples[::2]
    assert sorted(seen) == list(range(len(examples)))


@pytest.mark.parametrize("objective", OTHERS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_preview_shows_every_objective(tmp_path, objective, split):
    own = ["data=jsonl", f"data.path={write(tmp_path)}", "data.heldout_size=4", f"data.cache_dir={tmp_path}/cache",
           f"preview.split={split}"]  # fmt: skip
    cfg = compose_config("preview", ["+experiment=smoke", f"objective={objective}", *own], PreviewJobConfig)
    out = io.StringIO()
    assert job.preview(cfg, Console(file=out, width=300)) == 0
    text = out.getvalue()
    assert f"objective {objective}" in text and "trimmed: the first" not in text
    if split == "train" and objective == "ilf_dpo":
        assert "rejected for the response below: “bang”" in text


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_negative_weight_turns_a_rows_gradient_round(backend):
    """What DPO gives the rows of rejected responses."""
    inputs = random_inputs(7, None, 11, 5, dtype=torch.float32)
    inputs["token_weight"] = torch.tensor([1.0, -0.5, 2.0, -3.0, 0.0, 0.25, -1.0])
    actual, expected = (evaluate(f, inputs, **b) for f, b in
                        ((fused_linear_cut, {"backend": backend}), (from_whole_logits, {})))  # fmt: skip
    assert_same(actual, expected, rtol=1e-4, atol=1e-6)
