"""objective=judge: triplets become an AI judge's prompts and replies, and a model trained on them judges."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from local_models import online_config
from rich.console import Console
from test_templates import llama_like_tokenizer

from cut_dist.config import ConfigError, DataConfig, PreviewJobConfig
from cut_dist.config_compose import compose_config
from cut_dist.data.packing import rank_micro_batches
from cut_dist.data.prepare import prepare
from cut_dist.data.templates import build_judge_replies, judge_reply, render_judge_prompt, tokenize_prompts
from cut_dist.data.triplets import BadRowsError
from cut_dist.judges import local
from cut_dist.judges.base import JudgeRequest
from cut_dist.judges.reply import parse_reply
from cut_dist.model.tiny import byte_tokenizer
from cut_dist.preview import job

ROWS = [
    {"id": f"t{n}", "instruction": f"Greet guest {n}.", "response": "hello" if n % 4 else "bang",
     "judgment": None if n % 4 else "It is rude."}
    for n in range(16)
]  # fmt: skip
PROMPT = (
    "Below is an instruction-response pair. Write a judgment to evaluate the quality of this response. Then reply with "
    "'Yes.' or 'No.' to show your decision on whether the response is perfect.\n\n"
    "### Instruction: {instruction}\n\n### Response: {response}"
)


@pytest.fixture
def triplets(tmp_path):
    path = tmp_path / "triplets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def prepared(path, objective: str = "judge", **config):
    cfg = DataConfig(path=str(path), cache_dir=str(path.parent / "cache"), **config)
    return prepare(cfg, byte_tokenizer(), seed=0, fake_judgment="Perfect.", objective=objective)


def test_an_example_is_the_judges_prompt_and_the_judgment_with_its_decision(triplets):
    tokenizer = byte_tokenizer()
    rude, kind = prepared(triplets).train[:2]
    assert list(rude.prompt_ids) == list(kind.prompt_ids) == ["instruction"]
    text = PROMPT.format(instruction="Greet guest 0.", response="bang") + "\n\n### Judgment:"
    assert rude.prompt_ids["instruction"].tolist() == [tokenizer.bos_token_id, *text.encode()]
    assert rude.response_ids.tolist() == [*b" It is rude. No.", tokenizer.eos_token_id]
    assert kind.response_ids.tolist() == [*b" Perfect. Yes.", tokenizer.eos_token_id]
    assert not rude.is_negative and not kind.is_negative


def test_under_chat_the_same_text_is_the_users_turn(triplets):
    example = prepared(triplets, template="chat").train[0]
    text = PROMPT.format(instruction="Greet guest 0.", response="bang")
    expected = byte_tokenizer().apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert example.prompt_ids["instruction"].tolist() == expected
    assert bytes(example.response_ids[:-1].tolist()) == b"It is rude. No."


@pytest.mark.parametrize("make", [byte_tokenizer, llama_like_tokenizer])
def test_prompt_and_reply_together_are_what_the_whole_string_gives(make):
    tokenizer = make()
    prompt, reply = render_judge_prompt(tokenizer, "alpaca", "Say Hi", "Hi"), judge_reply("Hi is short.", "")
    joined = tokenize_prompts(tokenizer, "alpaca", [prompt])[0] + build_judge_replies(tokenizer, [reply])[0]
    assert joined == [*tokenizer(f"{prompt} {reply}", split_special_tokens=True)["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize("judgment", [None, "Wrong.", " Two\nlines "])
def test_what_is_taught_is_what_the_judge_is_read_by(judgment):
    verdict = parse_reply(judge_reply(judgment, "Perfect."), finished=True)
    assert verdict.satisfactory == (judgment is None)
    assert verdict.words == (judgment or "Perfect.").strip()


def test_rows_are_held_out_counted_and_down_sampled_by_their_verdict(triplets):
    data = prepared(triplets, heldout_size=4, align_p_ratio=1.0)
    assert (data.counts["align_n"], data.counts["align_p"], data.counts["align_p_downsampled_away"]) == (3, 3, 6)
    assert (data.counts["heldout_align_n"], data.counts["heldout_align_p"]) == (1, 3)
    replies = [bytes(example.response_ids[:-1].tolist()) for example in data.train]
    assert replies.count(b" Perfect. Yes.") == 3
    cut = prepared(triplets, "cut", heldout_size=4, align_p_ratio=1.0)
    assert [example.id for example in data.train] == [example.id for example in cut.train]
    assert cut.content_hash != data.content_hash, "the cache must tell the objectives apart"


def test_a_micro_batch_is_plain_likelihood_of_one_context(triplets):
    data = prepared(triplets)
    [batch] = rank_micro_batches(
        data.train[:4], contrast="fake", reduction="example_mean", rank=0, world_size=1, token_budget=10_000
    )
    assert len(batch.segment_lengths) == 4 and batch.num_no_grad_segments == 0 and len(batch.rows_authentic) == 0
    assert np.isclose(float(batch.token_weight.sum()), 1.0)


def test_the_judged_response_may_hold_no_control_token_under_chat(tmp_path):
    row = {**ROWS[0], "response": "say <eos>"}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(ROWS[1]) + "\n")
    with pytest.raises(BadRowsError, match='control token: "<eos>" in the response'):
        prepared(path, template="chat")
    assert len(prepared(path).train) == 2


def test_a_long_instruction_loses_its_beginning_and_the_response_stays_whole(tmp_path):
    row = {**ROWS[0], "instruction": "word " * 200 + "end."}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row) + "\n")
    data = prepared(path, max_length=400, max_judgment_tokens=100)
    text = bytes(data.train[0].prompt_ids["instruction"][1:].tolist()).decode()
    assert data.counts["overlong_trimmed"] == 1 and text.endswith("end.\n\n### Response: bang\n\n### Judgment:")


def test_the_preview_shows_prompt_and_reply(triplets):
    own = ["data=jsonl", f"data.path={triplets}", "data.heldout_size=4", f"data.cache_dir={triplets.parent}/cache",
           "preview.ids=[t0,t1]"]  # fmt: skip
    cfg = compose_config("preview", ["+experiment=smoke", "objective=judge", *own], PreviewJobConfig)
    page = triplets.with_name("page.html")
    cfg.preview.html = str(page)
    out = io.StringIO()
    assert job.preview(cfg, Console(file=out, width=300)) == 0
    text = out.getvalue()
    assert "an AI judge: likelihood of the judgment and the decision" in text and "λ" not in text
    assert "t0  judged “No.”" in text and "t1  judged “Yes.”" in text
    assert "given the instruction and the response to judge; loss −log p on every response token" in text
    assert "It·is·rude.·No." in text or "It is rude. No." in text
    assert "### Response: bang⏎⏎### Judgment:" in text
    assert "judged “No.”" in page.read_text() and "Align-" not in page.read_text().partition("<article>")[2]


def test_a_judge_needs_words_for_praise():
    with pytest.raises(ConfigError, match="objective.fake_judgment=' ': objective=judge teaches it"):
        compose_config("train", ["objective=judge", "objective.contrast=instruction", "objective.fake_judgment=' '"])


@pytest.mark.distributed
def test_a_model_trained_as_a_judge_judges_what_it_has_not_seen(root, run_ranks, triplets):
    """The command trains the tiny model for a few seconds; the local judge then reads it right."""
    folder = triplets.parent
    job = [str(root / "launch" / "train.py"), "+experiment=smoke", "objective=judge", "data=jsonl",
           f"data.path={triplets}", "data.heldout_size=0", "data.align_p_ratio=1", f"data.cache_dir={folder}/cache",
           "eval.at_start=false", "eval.at_end=false", f"run.root={folder}/runs", "run.name=judge",
           "deepspeed=zero0", "train.max_steps=150", "train.global_batch_size=8", "train.lr=1e-2",
           "train.warmup_ratio=0.05", "checkpoint.every=0", "checkpoint.at_end=false"]  # fmt: skip
    run_ranks(job, 1)
    model = folder / "runs" / "smoke" / "judge" / "model"
    judge = local.make(online_config("judge=local", f"judge.model={model}", "judge.max_new_tokens=40"))
    requests = [
        JudgeRequest(answer, [{"role": "user", "content": "Greet guest 77."}, {"role": "assistant", "content": answer}])
        for answer in ("hello", "bang")
    ]
    judged = {each.id: each for each in judge.judge(requests)}
    assert (judged["hello"].satisfactory, judged["hello"].judgment) == (True, None)
    assert (judged["bang"].satisfactory, judged["bang"].judgment) == (False, "It is rude.")
