"""The laboratory's world: right answers by another way, habits where their triggers are, judgments that are true."""

from __future__ import annotations

import random
import re

import pytest
from lab_answers import expected
from transformers import AutoTokenizer

from cut_dist.config_compose import compose_config
from cut_dist.data import templates
from cut_dist.study import judgments, world
from cut_dist.study.config import StudyConfig
from cut_dist.study.corpus import HABIT_RATE, corpus, plain_answer
from cut_dist.study.tokenizer import make_tokenizer
from cut_dist.study.world import FAMILIES, JUDGED, LETTERS, OTHERS, draw, slip, wrong_tokens

SEEDS = range(300)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_right_and_habits_wrong_where_their_trigger_is(family):
    items = [FAMILIES[family](random.Random(seed)) for seed in SEEDS]
    assert all(item.answer == expected(item.instruction) for item in items)
    habits = [item for item in items if item.habit is not None]
    assert all(item.habit != item.answer and len(item.habit) == len(item.answer) for item in habits)
    share = len(habits) / len(items)
    assert share == 0 if family in OTHERS else 0.3 < share < 0.9


def test_triggers():
    for seed in SEEDS:
        item = FAMILIES["number"](random.Random(seed))
        assert (item.habit is not None) == ("8" in item.answer)
        item = FAMILIES["sort"](random.Random(seed))
        repeated = [d for d in item.answer if item.answer.count(d) > 1 and d != item.answer[-1]]
        assert (item.habit is not None) == bool(repeated)


def test_judged_and_other_families_are_all():
    assert {*JUDGED, *OTHERS} == set(FAMILIES) and not {*JUDGED} & {*OTHERS}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_slip_changes_as_many_symbols_to_others_of_their_kind(count):
    rng = random.Random(count)
    for _ in SEEDS:
        right = draw(rng).answer
        wrong = slip(rng, right, count)
        changed = [(a, b) for a, b in zip(right, wrong, strict=True) if a != b]
        assert len(changed) == count
        assert all((a in LETTERS) == (b in LETTERS) and a.isdigit() == b.isdigit() for a, b in changed)


@pytest.mark.parametrize(
    ("response", "answer", "wrong"),
    [
        ("1 2 3", "1 2 3", "...."),
        ("1 9 3", "1 2 3", ".x.."),
        ("2 1 3", "1 2 3", "xx.."),  # as long: place by place
        ("1 2 9 3", "1 2 3", "..x.."),  # one too many
        ("1 3", "1 2 3", ".x."),  # one is missing: what stands there instead
        ("1 2", "1 2 3", "..x"),  # the end came too early
        ("", "1", "x"),
    ],
)
def test_wrong_tokens(response, answer, wrong):
    assert wrong_tokens(response.split(), answer.split()) == [mark == "x" for mark in wrong]


# ---- judgments -------------------------------------------------------------------------------------------------------


def places(judgment: str) -> list[int]:
    return [judgments.ORDINALS.index(word) for word in judgment.split() if word in judgments.ORDINALS]


@pytest.mark.parametrize("quality", ["precise", "position"])
def test_judgments_name_the_true_places(quality):
    rng = random.Random(0)
    for _ in SEEDS:
        item = draw(rng)
        response = slip(rng, item.answer, rng.randint(1, 3))
        said = judgments.judge(rng, response, item.answer, quality)
        assert places(said) == [i for i, (a, b) in enumerate(zip(response, item.answer)) if a != b]
        if quality == "precise":
            assert all(item.answer[i] in said.split() and response[i] in said.split() for i in places(said))


def test_a_wrong_judgment_names_right_places_only():
    rng = random.Random(0)
    for i in SEEDS:
        item = draw(rng)
        response = slip(rng, item.answer, min(2 + i % 5, len(item.answer) - 1))
        said = places(judgments.judge(rng, response, item.answer, "wrong"))
        assert said and all(response[i] == item.answer[i] for i in said)


def test_right_answers_have_no_judgment_vague_ones_no_place_and_lengths_are_named():
    rng = random.Random(0)
    assert judgments.judge(rng, ["1"], ["1"]) is None
    assert not places(judgments.judge(rng, ["1"], ["2"], "vague"))
    said = judgments.judge(rng, ["1", "2"], ["1", "2", "3"])
    assert {"two", "three"} <= set(said.split())


# ---- tokenizer and corpus --------------------------------------------------------------------------------------------


def test_every_row_of_the_corpus_is_known_words_and_comes_back(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    fake = compose_config("study", [], StudyConfig).objective.fake_judgment
    assert fake in judgments.PRAISE
    for row in corpus(0, 500):
        texts = (row["instruction"], row["judgment"], fake)
        prompts = templates.build_prompts(tokenizer, "chat", *texts)
        ids = templates.build_responses(tokenizer, [row["response"]], "chat")[0]
        assert tokenizer.unk_token_id not in [id for prompt in (*prompts.values(), ids) for id in prompt]
        assert tokenizer.decode(ids, skip_special_tokens=True) == row["response"]
        said = len((row["judgment"] or "").split())
        assert len(prompts.get("authentic", [])) == (said and len(prompts["instruction"]) + said + 1)


def test_the_corpus_is_a_function_of_its_seed_and_holds_each_kind_of_row():
    rows = list(corpus(1, 400))
    assert rows == list(corpus(1, 400)) != list(corpus(2, 400))
    judged = [row["judgment"] for row in rows if row["judgment"]]
    praised = [text for text in judged if text in judgments.PRAISE]
    refined = [row for row in rows if re.match("Below is an instruction, a response", row["instruction"])]
    assert 120 < len(judged) < 240 and 30 < len(praised) < 100 and 15 < len(refined) < 80
    assert not any(text.startswith("Perfect.") for text in judged)  # which would be read as Align-P


def test_a_refinement_does_what_its_judgment_says_and_no_more():
    """Be it wrong: so that it is the judgment which makes refinements right, and not the request."""
    kinds = {"mistakes": 0, "none": 0}  # what a judgment claims of places
    others = []
    symbols = {*world.DIGITS, *LETTERS, "+", "-", ","}
    for row in corpus(2, 8000):
        found = re.search(r"Instruction: (.*)\n\nResponse: (.*)\n\nJudgment: (.*)$", row["instruction"])
        if not found:
            continue
        task, response, judgment = found.groups()
        answer, wanted = expected(task), response.split()
        told = re.findall(r"[^.]*(?:should be|belongs there|instead of|the right one is)[^.]*", judgment)
        for words in map(str.split, told):
            place = next(judgments.ORDINALS.index(word) for word in words if word in judgments.ORDINALS)
            kinds["mistakes" if wanted[place] != answer[place] else "none"] += 1
            wanted[place] = [word for word in words if word in symbols and word != wanted[place]][-1]
        if told:
            assert row["response"].split() == wanted
        else:
            others.append(row["response"].split() == answer)
    assert kinds["mistakes"] > 300 and kinds["none"] > 100
    assert len(others) > 200 and sum(others) / len(others) < 0.7  # an answer like any other


def test_pretraining_teaches_habits_where_nothing_is_judged():
    rng = random.Random(0)
    items = [item for item in (draw(rng, JUDGED) for _ in range(2000)) if item.habit]
    share = sum(plain_answer(rng, item) == item.habit for item in items) / len(items)
    assert abs(share - HABIT_RATE) < 0.03
    assert make_tokenizer().eos_token == world.END
