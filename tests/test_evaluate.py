from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from cut_dist import report
from cut_dist.data.examples import Example
from cut_dist.evaluate import (
    TokenRecord,
    generation_examples,
    judged_tokens,
    reference_tokens,
    summarise,
    train_sample,
)
from cut_dist.model.tiny import byte_tokenizer


def record(name: str, p: list[float], inappropriate: list[bool] | None = None) -> TokenRecord:
    negative = inappropriate is not None
    logp = np.log(np.array(p))
    other = logp - 0.5 if negative else logp[:0]
    flags = np.array(inappropriate if negative else [False] * len(p))
    return TokenRecord(name, negative, float(len(p)), logp, logp_authentic=other, logp_fake=other, inappropriate=flags)


def test_summary_by_hand():
    records = [record("n", [0.5, 0.25, 1.0], [True, False, True]), record("p", [0.5, 0.5])]
    summary = summarise(records, {"n": [True, False, False]})
    assert summary["loss"] == pytest.approx(2.5)
    # -(ln .5 + ln .25 + ln 1)/3 = .6931 and ln 2 = .6931, so their mean
    assert summary["nll_instruction"] == pytest.approx(np.log(2))
    assert summary["nll_align_p"] == pytest.approx(np.log(2))
    assert summary["nll_authentic"] == pytest.approx(np.log(2) + 0.5)
    assert summary["p_inappropriate"] == pytest.approx(0.5)  # the reference's token, not today's two
    assert summary["p_others"] == pytest.approx((0.25 + 1) / 2)
    assert summary["p_align_p"] == pytest.approx(0.5)
    assert summary["share_inappropriate"] == pytest.approx(2 / 3)


def test_a_number_without_tokens_is_left_out():
    assert "p_inappropriate" not in summarise([record("p", [0.5])], {})
    assert "p_inappropriate" not in summarise([record("n", [0.5], [True])], {"n": [False]})


def test_the_reference_is_of_the_first_evaluation_of_each_example(tmp_path):
    path = tmp_path / "reference.json"
    first = reference_tokens(path, [record("n", [0.5, 0.5], [True, False]), record("p", [0.5])])
    assert first == {"n": [True, False]}
    again = [record("n", [0.5, 0.5], [False, False]), record("new", [0.5], [True])]  # a larger sample, after a resume
    assert reference_tokens(path, again) == {"n": [True, False], "new": [True]}
    assert reference_tokens(path, []) == {"n": [True, False], "new": [True]}


def test_align_n_prompts_are_answered_first():
    records = [record("p", [0.5]), record("n", [0.5], [True])]
    assert [r.id for r in generation_examples(records, 2)] == ["n", "p"]


def test_the_train_sample_is_spread_over_the_file():
    assert train_sample(list(range(95)), 5) == [0, 19, 38, 57, 76]
    assert train_sample(list(range(31)), 16)[-1] == 29
    assert train_sample(list(range(3)), 16) == [0, 1, 2]
    assert train_sample(list(range(3)), 0) == []


def test_the_table_of_judged_tokens_holds_whole_align_n_responses_while_they_fit():
    tokenizer = byte_tokenizer()

    def example(name: str, text: str) -> Example:
        prompt, response = (np.array(tokenizer(t, add_special_tokens=False).input_ids) for t in ("?", text))
        return Example(name, True, {"instruction": prompt}, response)

    examples = [example("n", "hi!"), example("p", "ok"), example("long", "abcd"), example("m", "<>")]
    records = [
        record("n", [0.5, 0.25, 0.125], [True, False, False]),
        record("p", [0.5, 0.5]),
        record("long", [0.5] * 4, [False] * 4),
        record("m", [0.5, 0.5], [False, True]),
    ]
    rows = judged_tokens(records, examples, tokenizer, limit=6)
    assert [(row["id"], row["position"], row["token"], row["inappropriate"]) for row in rows] == [
        ("n", 0, "h", True), ("n", 1, "i", False), ("n", 2, "!", False), ("m", 0, "<", False), ("m", 1, ">", True),
    ]  # fmt: skip
    p = [rows[1][key] for key in ("p_instruction", "p_authentic", "p_fake")]
    assert p == pytest.approx([0.25, 0.25 * np.exp(-0.5), 0.25 * np.exp(-0.5)])
    assert [row["token"] for row in judged_tokens(records, examples, tokenizer, limit=2)] == ["h", "i"]
    assert judged_tokens(records, examples, tokenizer, limit=0) == []


def test_report_shows_before_after_and_escapes_markup(tmp_path):
    def evaluation(step: int, loss: float, response: str) -> dict:
        row = {"id": "x", "prompt": "Say [bold]hello[/bold]", "response": response}
        metrics = {"heldout": {"loss": loss, "p_others": 0.5}, "train": {"loss": 9.0}}
        return {"step": step, "metrics": metrics, "generations": [row]}

    (tmp_path / "model").mkdir()
    out = io.StringIO()
    evaluations = [evaluation(0, 2.0, "old [red]"), evaluation(5, 3.0, "mid"), evaluation(9, 1.25, "new")]
    report.show(tmp_path, evaluations, Console(file=out, width=100))
    text = out.getvalue()
    assert "2.000" in text and "1.250" in text and "3.000" not in text
    assert "[bold]hello[/bold]" in text and "old [red]" in text and "mid" not in text
    assert "metrics.jsonl" not in text, "what is not there is not named"
