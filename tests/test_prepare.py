"""From a data config to examples: bad and over-long rows, held-out and down-sampled rows, the account."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, normalizers

from cut_dist.config import DataConfig
from cut_dist.data.examples import Prepared
from cut_dist.data.prepare import prepare
from cut_dist.data.templates import build_prompts, build_responses
from cut_dist.data.triplets import BadRowsError, DataError
from cut_dist.model.tiny import byte_tokenizer


def row(number: int, **changes: object) -> dict:
    judgment = f"Row {number} is wrong." if number % 4 == 0 else None
    fields = {"id": f"r{number}", "instruction": f"Task {number}", "response": f"Answer {number}"}
    return {**fields, "judgment": judgment, **changes}


def write(path: Path, rows: list) -> Path:
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.fixture
def run(tmp_path):
    """Prepare rows (or a file) with the byte tokenizer; keyword arguments are the data config's."""

    def run(rows, *, seed: int = 0, tokenizer=None, fake_judgment: str = "Perfect.", **config) -> Prepared:
        path = write(tmp_path / "train.jsonl", rows) if isinstance(rows, list) else rows
        cfg = DataConfig(path=str(path), cache_dir=str(tmp_path / "cache"), **config)
        return prepare(cfg, tokenizer or byte_tokenizer(), seed=seed, fake_judgment=fake_judgment)

    return run


def ids(examples) -> list[str]:
    return [example.id for example in examples]


def check_account(prepared: Prepared) -> None:
    counts = prepared.counts
    gone = ("rejected", "over_limit", "overlong_dropped", "heldout_not_chosen", "align_p_downsampled_away")
    assert counts["rows_read"] == sum(counts[name] for name in gone) + counts["kept"]
    assert counts["kept"] == counts["train"] + counts["heldout"]
    assert counts["train"] == len(prepared.train) == counts["align_p"] + counts["align_n"]
    assert counts["heldout"] == len(prepared.heldout) == counts["heldout_align_p"] + counts["heldout_align_n"]
    assert counts["align_n"] == sum(e.is_negative for e in prepared.train)
    assert len(prepared.rejects) == counts["rejected"] + counts["overlong_dropped"]
    everyone = ids(prepared.train) + ids(prepared.heldout)
    assert len(set(everyone)) == len(everyone)


def test_examples_are_the_rows_in_order_as_the_templates_tokenise_them(run):
    tokenizer = byte_tokenizer()
    for template in ("alpaca", "chat"):
        prepared = run([row(n) for n in range(6)], template=template, fake_judgment="Good.")
        check_account(prepared)
        assert ids(prepared.train) == [f"r{n}" for n in range(6)]
        for number, example in enumerate(prepared.train):
            fields = row(number)
            assert example.is_negative == (fields["judgment"] is not None)
            expected = build_prompts(tokenizer, template, fields["instruction"], fields["judgment"], "Good.")
            assert {name: prompt.tolist() for name, prompt in example.prompt_ids.items()} == expected
            assert example.response_ids.tolist() == build_responses(tokenizer, [fields["response"]], template)[0]
            arrays = [*example.prompt_ids.values(), example.response_ids]
            assert {a.dtype for a in arrays} == {np.dtype(np.int32)}


# ---- bad rows ----


def test_bad_rows_stop_the_run_with_a_list_and_a_remedy(run, tmp_path):
    rows = [row(0), row(1, response=""), row(2), row(3, judgment="x" * 41)]
    with pytest.raises(BadRowsError) as error:
        run(rows, max_judgment_tokens=40)
    path = tmp_path / "train.jsonl"
    assert [(r.place, r.kind) for r in error.value.rejects] == [
        (f"{path}:2", "empty response"),
        (f"{path}:4", "judgment too long"),
    ]
    assert "2 of 4 rows" in str(error.value)
    assert "41 tokens, data.max_judgment_tokens is 40" in str(error.value)
    assert "data.on_bad_row=skip" in str(error.value)


def test_skipped_rows_are_counted_written_to_a_file_and_still_known_to_the_cache(run, tmp_path, caplog):
    rows = [row(0), row(1, response=""), row(2, response=...), b"\xff", row(4)]
    rows[2].pop("response")
    first = run(rows, on_bad_row="skip")
    check_account(first)
    assert first.counts["rejected"] == 3
    assert ids(first.train) == ["r0", "r4"]
    assert "more than a fifth of the rows are bad" in caplog.text
    written = next((tmp_path / "cache").rglob("rejects.jsonl"))
    entries = [json.loads(line) for line in written.read_text().splitlines()]
    assert [(e["line"], e["reason"].partition(":")[0]) for e in entries] == [
        (2, "empty response"),
        (3, "missing field"),
        (4, "not UTF-8"),
    ]
    assert str(written) in caplog.text
    assert run(rows, on_bad_row="skip").rejects == first.rejects


def test_rows_are_rejected_in_the_order_of_the_file_whenever_their_flaw_was_found(run):
    rows = [row(0), row(1, judgment="x" * 99), row(2, response=""), row(3, judgment="x" * 99), row(4)]
    prepared = run(rows, on_bad_row="skip", max_judgment_tokens=40)
    assert [r.line for r in prepared.rejects] == [2, 3, 4]


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_where_no_row_is_good_there_is_no_advice_to_skip(run, policy):
    with pytest.raises(BadRowsError, match="No other row is left to train on") as error:
        run([row(n, response="") for n in range(3)], on_bad_row=policy)
    assert "on_bad_row=skip" not in str(error.value)
    with pytest.raises(BadRowsError, match="^1 of 1 row cannot"):
        run([row(1, response="")], on_bad_row=policy)


def test_a_response_that_tokenises_to_nothing_is_a_bad_row(run):
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("§", "")
    prepared = run([row(0), row(1, response="§§")], tokenizer=tokenizer, on_bad_row="skip")
    assert [(r.line, r.kind) for r in prepared.rejects] == [(2, "response without tokens")]


def test_control_tokens_in_text_are_bad_rows_under_chat_and_plain_text_under_alpaca(run):
    specials = ["<bos>", "<eos>", "<pad>", "[user]", "[assistant]"]
    rows = [row(n) for n in range(200)]
    for n in range(0, 200, 2):
        field = "judgment" if n % 4 == 0 else "instruction"
        rows[n] = row(n, **{field: f"see {specials[n // 2 % 5]} here"})
    for n in range(1, 200, 2):
        rows[n]["response"] += "<eos> ### Response:\n<bos>"

    chat = run(rows, template="chat", on_bad_row="skip")
    assert ids(chat.train) == [f"r{n}" for n in range(1, 200, 2)]
    assert [r.line for r in chat.rejects] == list(range(1, 201, 2))
    assert [r.reason for r in chat.rejects[:3]] == [
        'control token: "<bos>" in the judgment',
        'control token: "<eos>" in the instruction',
        'control token: "<pad>" in the judgment',
    ]
    alpaca = run(rows, template="alpaca")
    assert len(alpaca.train) == 200
    for example in [*alpaca.train, *chat.train]:
        assert (example.response_ids >= 256).sum() == 1
        assert all((prompt >= 256).sum() == 1 for prompt in example.prompt_ids.values())


def test_a_control_token_that_only_a_normaliser_reveals_is_found_in_the_ids(run):
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("‹", "<")
    tokenizer.add_tokens([AddedToken("<end>", special=True, normalized=True)], special_tokens=True)
    rows = [row(1), row(2, instruction="a ‹end> b"), row(3)]
    prepared = run(rows, template="chat", tokenizer=tokenizer, on_bad_row="skip")
    assert [r.reason for r in prepared.rejects] == ['control token: "<end>" is made by the prompt\'s text']


@pytest.mark.parametrize("fake_judgment", ["", "  ", "Good <eos>"])
def test_a_fake_judgment_that_is_no_plain_text_is_refused(run, fake_judgment):
    with pytest.raises(DataError, match="objective.fake_judgment="):
        run([row(0)], template="chat", fake_judgment=fake_judgment)


# ---- over-long rows ----


def long_rows() -> list[dict]:
    return [row(0), row(1, instruction="old words " * 60 + "new"), row(2), row(3, response="y" * 400)]


def test_trimming_takes_the_beginning_of_the_instruction_alike_from_all_contexts_and_counts(run):
    rows = [row(0), row(4, instruction="old words " * 60 + "new"), row(8, response="y" * 600)]
    prepared = run(rows, max_length=500, max_judgment_tokens=100)
    check_account(prepared)
    assert (prepared.counts["overlong_trimmed"], prepared.counts["overlong_dropped"]) == (1, 1)
    assert [(r.line, r.kind) for r in prepared.rejects] == [(3, "over-long")]
    tokenizer, example = byte_tokenizer(), prepared.train[1]
    longest = max(len(prompt) for prompt in example.prompt_ids.values())
    assert longest + len(example.response_ids) == 500  # bytes: cut to the token
    assert tokenizer.decode(example.response_ids[:-1]) == "Answer 4"
    kept = {name: tokenizer.decode(prompt) for name, prompt in example.prompt_ids.items()}
    assert "Row 4 is wrong." in kept["authentic"]
    starts = {name: text.split("### Instruction:\n")[1].split("\n\n###")[0] for name, text in kept.items()}
    assert len(set(starts.values())) == 1
    assert starts["fake"].endswith("old words new")
    assert len(starts["fake"]) < 600
    assert all(text.startswith("<bos>Below is an instruction") for text in kept.values())


def test_over_long_rows_may_be_dropped_or_refused(run):
    limits = {"max_length": 300, "max_judgment_tokens": 100}
    prepared = run(long_rows()[1:], on_overlong="drop", **limits)
    check_account(prepared)
    assert ids(prepared.train) == ["r2"]
    assert [r.line for r in prepared.rejects] == [1, 3]
    with pytest.raises(BadRowsError, match="data.max_length is 300") as error:
        run(long_rows()[1:], on_overlong="error", **limits)
    assert len(error.value.rejects) == 2
    assert "data.on_overlong" in str(error.value)


def test_a_row_of_exactly_the_limit_stays_whole(run):
    whole = run([row(0)]).train[0]
    length = max(map(len, whole.prompt_ids.values())) + len(whole.response_ids)
    fits = run([row(0)], max_length=length, max_judgment_tokens=50)
    assert fits.counts["overlong_trimmed"] == 0
    shorter = run([row(0), row(4)], max_length=length - 1, max_judgment_tokens=50)
    assert shorter.counts["overlong_trimmed"] == 2


def test_nothing_left_to_train_on_is_an_error_with_the_account(run):
    with pytest.raises(DataError, match="no row is left to train on: .*overlong_dropped 1"):
        run([row(0)], max_length=20, max_judgment_tokens=15)


# ---- Align-P, held-out rows, limit ----


def test_align_p_is_kept_in_the_papers_ratio_to_align_n(run):
    rows = [row(n) for n in range(100)]  # 25 negative, 75 positive
    for ratio, kept in [(0.25, 6), (0.3, 7), (0.0, 0), (1.0, 25), (3.5, 75), (None, 75)]:
        prepared = run(rows, align_p_ratio=ratio)
        check_account(prepared)
        assert (prepared.counts["align_n"], prepared.counts["align_p"]) == (25, kept)
        assert ids(prepared.train) == sorted(ids(prepared.train), key=lambda id: int(id[1:]))


def test_released_round_one_keeps_71_positives(run, shared_data):
    path = shared_data / "data" / "cut_online" / "iter1.json"
    prepared = run(path, align_p_ratio=0.25, max_length=9000, max_judgment_tokens=4000)
    check_account(prepared)
    assert (prepared.counts["align_n"], prepared.counts["align_p"]) == (287, 71)
    assert prepared.rejects == []


def test_choices_depend_on_seed_and_ids_but_not_on_the_order_of_the_file(run):
    rows = [row(n) for n in range(100)]
    shuffled = random.Random(1).sample(rows, len(rows))
    options = {"align_p_ratio": 0.5, "heldout_size": 10}
    first, second, other = run(rows, **options), run(shuffled, **options), run(rows, seed=1, **options)
    for part in ("train", "heldout"):
        chosen = [set(ids(getattr(prepared, part))) for prepared in (first, second, other)]
        assert chosen[0] == chosen[1] != chosen[2]
    assert ids(second.train) == [r["id"] for r in shuffled if r["id"] in ids(first.train)]
    assert first.content_hash != second.content_hash


def test_held_out_rows_have_both_kinds_in_proportion(run):
    rows = [row(n) for n in range(100)]
    for size, negatives in [(20, 5), (2, 1), (1, 0), (99, 25)]:
        prepared = run(rows, heldout_size=size)
        check_account(prepared)
        assert prepared.counts["heldout"] == size
        assert abs(prepared.counts["heldout_align_n"] - negatives) <= (size == 99)
    with pytest.raises(DataError, match="heldout_size=100 leaves nothing of 100"):
        run(rows, heldout_size=100)


def test_align_p_is_down_sampled_in_training_only(run):
    prepared = run([row(n) for n in range(100)], heldout_size=20, align_p_ratio=0.25)
    check_account(prepared)
    assert (prepared.counts["heldout_align_p"], prepared.counts["heldout_align_n"]) == (15, 5)
    assert (prepared.counts["align_p"], prepared.counts["align_n"]) == (5, 20)


def test_a_held_out_file_may_number_its_rows_alike_but_may_not_share_them(run, tmp_path):
    heldout = write(
        tmp_path / "heldout.jsonl", [row(0, instruction="Other"), row(1, response="Other"), row(2)]
    )
    rows = [row(n) for n in range(8)]
    with pytest.raises(BadRowsError, match=f"held out too: the same row is at {heldout}:3"):
        run(rows, heldout_path=str(heldout))
    prepared = run(rows, heldout_path=str(heldout), on_bad_row="skip")
    check_account(prepared)
    assert ids(prepared.heldout) == ["heldout/r0", "heldout/r1", "heldout/r2"]
    assert ids(prepared.train) == [f"r{n}" for n in range(8) if n != 2]
    assert prepared.counts["rows_read"] == 11


def test_some_rows_of_a_held_out_file(run, tmp_path):
    heldout = write(tmp_path / "heldout.jsonl", [row(n, instruction="Other") for n in range(20)])
    prepared = run([row(n) for n in range(8)], heldout_path=str(heldout), heldout_size=8)
    check_account(prepared)
    assert (prepared.counts["heldout_align_n"], prepared.counts["heldout_align_p"]) == (2, 6)
    assert prepared.counts["heldout_not_chosen"] == 12
    assert prepared.counts["train"] == 8


def test_bad_rows_of_the_held_out_file_count_too(run, tmp_path):
    heldout = write(tmp_path / "heldout.jsonl", [row(9, response=""), row(10)])
    prepared = run([row(1), row(2)], heldout_path=str(heldout), on_bad_row="skip")
    check_account(prepared)
    assert [r.place for r in prepared.rejects] == [f"{heldout}:1"]


def test_the_limit_takes_the_first_rows(run):
    prepared = run([row(n) for n in range(50)], limit=12)
    check_account(prepared)
    assert ids(prepared.train) == [f"r{n}" for n in range(12)]
    assert prepared.counts["over_limit"] == 38


def test_the_log_gives_the_account_and_the_reasons(run, caplog):
    caplog.set_level("INFO")
    run([row(0), row(1), row(2, response="")], on_bad_row="skip")
    assert "rows_read 3, rejected 1, kept 2, train 2, align_p 1, align_n 1" in caplog.text
    assert "By reason: empty response 1" in caplog.text
