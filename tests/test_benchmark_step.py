"""suite=step: the released scheme is what was released, gives our gradients, and both count the same useful tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cut_dist.benchmark import released, step_suite
from cut_dist.benchmark.config import BenchmarkJobConfig
from cut_dist.benchmark.timing import largest_error
from cut_dist.benchmark.triplets import step_examples
from cut_dist.config import ConfigError, ObjectiveConfig
from cut_dist.config_compose import compose_config
from cut_dist.data.examples import Example
from cut_dist.data.packing import CONTRASTS

CPU = torch.device("cpu")


def configuration(*overrides: str) -> BenchmarkJobConfig:
    return compose_config("benchmark", ["model=tiny_random", "step.triplets=null", *overrides], BenchmarkJobConfig)


def example(response: int, **prompts: int) -> Example:
    generator = np.random.default_rng(response)
    draw = lambda n: generator.integers(0, 250, n).astype(np.int32)  # noqa: E731
    prompt_ids = {name: draw(length) for name, length in prompts.items()}
    return Example(f"e{response}", "authentic" in prompts, prompt_ids, draw(response))


NEGATIVE = example(4, instruction=3, authentic=8, fake=5)
POSITIVE = example(6, instruction=7)
LONG = example(40, instruction=5, authentic=12, fake=6)
LONG.response_ids[:20] = 7


def test_useful_tokens_by_hand():
    # Align-P: 7 + 6. Align-N: 3 + 4 in the instruction context, 8 + 4 in the authentic, 5 + 4 in the fake one.
    assert step_suite.useful_tokens([NEGATIVE, POSITIVE], "instruction") == 13 + 7 + 12
    assert step_suite.useful_tokens([NEGATIVE, POSITIVE], "fake") == 13 + 7 + 12 + 9


def test_two_padded_rows_an_example():
    batch = released.pad_examples([NEGATIVE, POSITIVE], [0.5, 0.25], "instruction", CPU)
    # judged slot: Align-N with its judgment (8 + 4), Align-P's only context (7 + 6); plain slot: 3 + 4, and nothing
    assert batch.attention_mask.sum(1).tolist() == [12, 13, 7, 0]
    assert batch.input_ids.shape == (4, 13)
    assert (batch.labels != -100).sum(1).tolist() == [4, 6, 4, 0]
    assert batch.labels[2, -4:].tolist() == batch.input_ids[2, -4:].tolist() == NEGATIVE.response_ids.tolist()
    assert batch.input_ids[0, 1:9].tolist() == NEGATIVE.prompt_ids["authentic"].tolist()


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("members", [(LONG, POSITIVE, NEGATIVE), (POSITIVE,), (LONG,)])
def test_the_released_scheme_and_ours_have_the_same_gradients(contrast: str, members: tuple[Example, ...]):
    cfg = configuration("objective.lam=1.0", "objective.gamma=0.5")
    model = step_suite.build_model(cfg, cfg.model, CPU, torch.float32)
    # Made to repeat the last token with p near 0.8: at 1/320 unlikelihood's share would be too small to see.
    model.causal_lm.lm_head.weight.data.copy_(6 * model.causal_lm.get_input_embeddings().weight.data)
    scene = step_suite.Scene(cfg, model, members, CPU)
    expected = step_suite.released(scene, contrast).loss_and_gradients()
    got = step_suite.ours(scene, contrast).loss_and_gradients()
    out = model(scene.packed(members, contrast))
    if members[0].is_negative:
        assert 0 < int(out.inappropriate.sum()) < len(out.inappropriate)  # both kinds of tokens are compared
    assert largest_error(got, expected) < 1e-4


@pytest.mark.parametrize("name", ["seed1", "seed2", "seed3"])  # Align-N, Align-P, two Align-N
def test_the_released_loss_is_the_released_one(name: str, root: Path):
    cases = json.loads((root / "tests/golden/released_loss.json").read_text())
    case = next(c for c in cases if c["name"] == name)
    judged, plain = (torch.tensor(case[f"logits_{slot}"]).requires_grad_() for slot in ("judged", "plain"))
    labels = torch.cat([torch.tensor(case[f"labels_{slot}"]) for slot in ("judged", "plain")])
    negative = torch.tensor(case["is_negative"])
    tokens = int((labels[: len(negative), 1:] != -100).sum())
    weight = torch.full(negative.shape, (0.5 if negative.any() else 1.0) / tokens)  # its mean, and its half
    batch = released.PaddedBatch(labels, labels, labels, negative, weight)
    objective = ObjectiveConfig(lam=case["lam"], alpha=case["alpha"], gamma=0.0)
    total = released.loss_of_logits(torch.cat([judged, plain]), batch, objective)
    total.backward()
    assert total.item() == pytest.approx(case["total"], rel=1e-5)
    torch.testing.assert_close(judged.grad, torch.tensor(case["grad_judged"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(plain.grad, torch.tensor(case["grad_plain"]), rtol=1e-5, atol=1e-6)


def test_a_random_model_reads_every_fourth_byte():
    cfg = configuration("data.max_length=120", "data.max_judgment_tokens=100", "data.on_bad_row=skip")
    thinned, described = step_examples(cfg, cfg.model, CPU)
    assert described["kept_of_each_text"] == "1/4" and described["file"] == "train.jsonl"
    longest = max(len(ids) + len(e.response_ids) for e in thinned for ids in e.prompt_ids.values())
    assert len(thinned) == described["counts"]["train"] and 100 < longest <= 120 + 2  # of 480 bytes


def test_every_repetition_draws_other_examples_and_the_same_again():
    cfg = configuration("step.examples=4")
    many = [example(n, instruction=3) for n in range(2, 60)]
    draws = [[e.id for e in step_suite.Scene(cfg, None, many, CPU).draw(i)] for i in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1] and len(set(draws[0])) == 4


def test_triplets_that_are_not_there_are_missed(caplog, tmp_path):
    """The shipped ones in their place are short, which a GPU's table would not tell."""
    cfg = configuration(f"step.triplets={tmp_path / 'iter1.json'}")
    _, described = step_examples(cfg, cfg.model, CPU)
    assert described["file"] != "iter1.json" and "iter1.json is no file here" in caplog.text


def test_too_few_triplets_are_said_so():
    cfg = configuration("step.examples=500")
    with pytest.raises(ConfigError, match="step.examples=500: there are only"):
        step_suite.step_case(cfg, CPU, torch.float32)


def test_checkpointing_that_nobody_chooses_here_is_refused():
    cfg = configuration()
    cfg.model.checkpointing = "selective"
    with pytest.raises(ConfigError, match="use none or full"):
        step_suite.build_model(cfg, cfg.model, CPU, torch.float32)


def test_the_gpu_gets_the_random_llama_unless_told_otherwise():
    cfg, cuda = compose_config("benchmark", [], BenchmarkJobConfig), torch.device("cuda")
    assert step_suite.choose_model(cfg, CPU) is cfg.model
    assert step_suite.choose_model(cfg, cuda).random_init["hidden_size"] == 4096
    cfg = compose_config("benchmark", ["step.cuda_model=null"], BenchmarkJobConfig)
    assert step_suite.choose_model(cfg, cuda) is cfg.model
