"""objective.without, λ₂ and σ: loss and gradients through `CutModel` against the formula in float64, and the data."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
import rank_equality as worker
import torch

from cut_dist.config import ConfigError, ObjectiveConfig
from cut_dist.config_compose import compose_config
from cut_dist.data.examples import Example
from cut_dist.data.packing import PackedBatch, example_weights, pack_examples
from cut_dist.data.templates import build_prompts
from cut_dist.model import attention
from cut_dist.model.head import CutModel
from cut_dist.model.layers import replace_forwards
from cut_dist.model.load import load_causal_lm
from cut_dist.model.tiny import byte_tokenizer
from cut_dist.objective_options import loss_options, packing_options, prepare_data, training_options
from cut_dist.step_stats import model_flops
from cut_dist.throughput import causal_pairs, forward_flops, model_shape

CFG = worker.make_config(0, "fake", 1, "example_mean")
WITHOUT = ["l1", "l2_align_p", "l2_align_n", "detection", "dynamic_weight"]
# A random model gives each of its 259 tokens about 1/259 = 0.0039.
OBJECTIVES = {
    **{f"{without}, {contrast}": {"without": without, "contrast": contrast}
       for without in WITHOUT for contrast in ("fake", "instruction")},
    "lambda 2": {"lam_instruction": 1.02},
    "floor": {"floor": 0.004},
    "both": {"lam_instruction": 0.99, "floor": 0.0037},
}  # fmt: skip


def objective(**changes) -> ObjectiveConfig:
    return replace(CFG.objective, lam=0.97, alpha=0.7, gamma=0.5, **changes)


def encoded(o: ObjectiveConfig) -> list[Example]:
    """The examples as the data layer makes them for this objective (the tests of data below see that it does)."""
    examples = worker.make_examples()
    if o.without == "l2_align_p":
        return [e for e in examples if e.is_negative]
    if o.without == "l1":
        prompts = [{"instruction": e.prompt_ids.get("authentic", e.prompt_ids["instruction"])} for e in examples]
        return [replace(e, is_negative=False, prompt_ids=ids) for e, ids in zip(examples, prompts)]
    return examples


def packed(o: ObjectiveConfig) -> PackedBatch:
    examples = encoded(o)
    return pack_examples(examples, example_weights(examples, "example_mean"), **packing_options(o))


def cut_model(o: ObjectiveConfig) -> CutModel:
    causal_lm = load_causal_lm(CFG.model, dtype=torch.float32, seed=CFG.seed)
    replace_forwards(causal_lm, split=True, checkpointed=False)
    return CutModel(causal_lm, **loss_options(o), in_training=training_options(o), attention="sdpa").train()


def logps(causal_lm, example: Example) -> dict[str, torch.Tensor]:
    """log p of the response's tokens in each context, each a forward of its own."""
    response = torch.from_numpy(example.response_ids).long()
    found = {}
    for context, prompt in example.prompt_ids.items():
        logits = causal_lm(torch.cat([torch.from_numpy(prompt).long(), response])[None]).logits[0, len(prompt) - 1 : -1]
        found[context] = logits.log_softmax(-1).gather(1, response[:, None])[:, 0]
    return found


def plain_loss(causal_lm, o: ObjectiveConfig) -> torch.Tensor:
    """Paper eq. 5 to 7 less what is left out, with DualCUT's tests, from probabilities under plain autograd."""
    kept = [e for e in worker.make_examples() if e.is_negative or o.without != "l2_align_p"]
    total = 0.0
    for example in kept:
        logp = logps(causal_lm, example)
        p = {context: x.exp().detach() for context, x in logp.items()}
        if not example.is_negative:
            loss = -logp["instruction"]
        elif o.without == "l1":
            loss = -logp["authentic"]
        else:
            p_contrast = p["fake" if o.contrast == "fake" else "instruction"]
            unlearned = (p["authentic"] > o.lam * p_contrast) & (p["authentic"] > o.floor)
            if o.lam_instruction is not None:
                unlearned &= p["authentic"] > o.lam_instruction * p["instruction"]
            if o.without == "detection":
                unlearned[:] = True
            w = o.alpha * p["authentic"] ** (0 if o.without == "dynamic_weight" else o.gamma)
            loss = torch.where(unlearned, -w * (1 - logp["instruction"].exp()).log(), -logp["instruction"])
            loss = loss if o.without == "l2_align_n" else loss - logp["authentic"]
        total = total + loss.mean() / len(kept)
    return total


@cache
def exact(contrast: str) -> tuple[float, torch.Tensor]:
    """The plain loss of CUT as a whole and the gradient of the embeddings: what an ablation has to differ from."""
    model = float64_model()
    loss = plain_loss(model, objective(contrast=contrast))
    loss.backward()
    return loss.item(), model.get_input_embeddings().weight.grad


def float64_model():
    model = load_causal_lm(CFG.model, dtype=torch.float32, seed=CFG.seed).double()
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_against_the_formula(name):
    o = objective(**OBJECTIVES[name])
    wanted = float64_model()
    loss = plain_loss(wanted, o)
    loss.backward()
    model = cut_model(o)
    got = model(packed(o)).loss
    got.backward()
    assert got.item() == pytest.approx(loss.item(), rel=1e-5)
    gradients = dict(wanted.named_parameters())
    for parameter, p in model.causal_lm.named_parameters():
        want = gradients[parameter].grad
        assert (p.grad.double() - want).abs().max() < 1e-5 * want.abs().max(), parameter
    whole, gradient = exact(o.contrast)
    difference = (gradients["model.embed_tokens.weight"].grad - gradient).abs().max() / gradient.abs().max()
    assert abs(loss.item() - whole) > 1e-4 or difference > 1e-3, "nothing was left out"


@pytest.mark.parametrize("without", ["l2_align_p", "l2_align_n", "detection", "dynamic_weight"])
def test_an_evaluation_measures_cut_as_a_whole(without):
    o, whole = objective(without=without), objective()
    examples = worker.make_examples()
    batch = pack_examples(examples, example_weights(examples, "example_mean"), o.contrast)
    with torch.no_grad():
        got, want = (cut_model(each).eval()(batch) for each in (o, whole))
    assert want.inappropriate.any() and want.loss_authentic.any()
    for field, value in want._asdict().items():
        assert torch.equal(getattr(got, field), value), field


def test_without_detection_all_tokens_count_and_no_fake_context_is_packed():
    o = objective(without="detection")
    batch = packed(o)
    assert batch.rows_fake is None and batch.num_no_grad_segments == 0
    out = cut_model(o)(batch)
    negatives = batch.rows_authentic.shape[0]
    assert out.inappropriate[:negatives].all() and not out.inappropriate[negatives:].any()


@pytest.mark.parametrize("contrast", ["fake", "instruction"])
def test_without_l2_of_align_n_the_authentic_context_has_no_backward(contrast, monkeypatch):
    calls = []
    sdpa = attention.BACKENDS["sdpa"]

    def recorded(query, *args):
        calls.append((query.shape[2], query.requires_grad))
        return sdpa(query, *args)

    monkeypatch.setitem(attention.BACKENDS, "sdpa", recorded)
    o = objective(without="l2_align_n", contrast=contrast)
    batch, model = packed(o), cut_model(o)
    learned = len(encoded(o))  # one segment each, of the instruction context
    lengths = batch.segment_lengths
    out = model(batch)
    assert calls == [(sum(lengths[:learned]), True), (sum(lengths[learned:]), False)] * 2
    assert out.loss_authentic.eq(0).all() and out.logp_authentic.any()
    shape, flops = model_shape(model.causal_lm.config), 0
    read = batch.rows_authentic.shape[0] * (2 if contrast == "fake" else 1)
    for part, rows, passes in ((lengths[:learned], len(batch.labels), 3), (lengths[learned:], read, 1)):
        flops += passes * forward_flops(shape, tokens=sum(part), pairs=causal_pairs(part), head_rows=rows)
    assert model_flops(batch, shape) == flops


# ---- data and config ----

ROWS = [
    {"id": "n1", "instruction": "Add 2 and 2.", "response": "5", "judgment": "Wrong, it is 4."},
    {"id": "p1", "instruction": "Say hello.", "response": "Hello", "judgment": None},
    {"id": "n2", "instruction": "Name a fruit.", "response": "Carrot", "judgment": "A carrot is no fruit."},
    {"id": "p2", "instruction": "Name a colour.", "response": "Blue", "judgment": None},
]


def prepared(tmp_path, **changes):
    rows, heldout = tmp_path / "rows.jsonl", tmp_path / "heldout.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    heldout.write_text(json.dumps(ROWS[0] | {"instruction": "Add 1 and 1."}) + "\n")
    places = {"path": str(rows), "heldout_path": str(heldout), "cache_dir": str(tmp_path / "cache")}
    data = replace(CFG.data, max_length=512, max_judgment_tokens=64, **places)
    data = prepare_data(replace(CFG, data=data, objective=objective(**changes)), byte_tokenizer())
    return data, {e.id: e for e in data.train}


def test_data_without_l1_is_one_context_with_the_judgment_where_there_is_one(tmp_path):
    data, examples = prepared(tmp_path, without="l1")
    assert len(examples) == 4 and data.counts["align_n"] == 2
    for row in ROWS:
        prompts = build_prompts(byte_tokenizer(), "alpaca", row["instruction"], row["judgment"], "Perfect.")
        wanted = prompts["authentic" if row["judgment"] else "instruction"]
        example = examples[row["id"]]
        assert not example.is_negative and example.prompt_ids.keys() == {"instruction"}
        assert example.prompt_ids["instruction"].tolist() == list(wanted)


def test_data_without_l2_of_align_p_has_none_and_says_so(tmp_path, caplog):
    with caplog.at_level("INFO"):
        data, examples = prepared(tmp_path, without="l2_align_p")
    assert examples.keys() == {"n1", "n2"} and data.counts["align_p_downsampled_away"] == 2
    assert "align_p_downsampled_away 2" in caplog.text


@pytest.mark.parametrize("without", [None, *WITHOUT])
def test_the_composed_config_takes_each(without):
    overrides = [f"objective.without={without or 'null'}", "objective.lam_instruction=1.2", "objective.floor=0.01"]
    o = compose_config("train", ["+experiment=smoke", *overrides]).objective
    assert (o.without, o.lam_instruction, o.floor) == (without, 1.2, 0.01)


def test_an_ablation_of_another_objective_is_refused():
    with pytest.raises(ConfigError, match="objective.without='l1': leaves out .*objective.name is judge"):
        compose_config("train", ["+experiment=smoke", "objective=judge", "objective.without=l1"])
