"""Generated instructions: any number, the same everywhere, held-out ones apart, and none that can't be done."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest
from conftest import ROOT
from verifiable_builder import satisfying

from cut_dist.config_check import ConfigError
from cut_dist.verifiable import KINDS, judge, make_checks, make_instructions
from cut_dist.verifiable.tasks import _WORDINGS
from cut_dist.verifiable.topics import (
    HELDOUT_RECORDS,
    HELDOUT_THINGS,
    HELDOUT_TOPICS,
    TRAIN_RECORDS,
    TRAIN_THINGS,
    TRAIN_TOPICS,
)

MANY = 5_000


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    return {split: make_instructions(MANY, 0, split, max_checks=3) for split in ("train", "heldout")}


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_no_text_and_no_id_repeats_and_every_kind_occurs(rows, split: str) -> None:
    assert len({row["instruction"] for row in rows[split]}) == MANY
    assert len({row["id"] for row in rows[split]}) == MANY
    kinds = Counter(check["kind"] for row in rows[split] for check in row["metadata"]["checks"])
    assert sorted(kinds) == sorted(KINDS)
    checks = Counter(len(row["metadata"]["checks"]) for row in rows[split])
    assert set(checks) == {1, 2, 3} and checks[1] > checks[2] > checks[3] > 200


def test_the_splits_share_no_text_no_topic_and_no_question(rows) -> None:
    texts = {split: {row["instruction"] for row in rows[split]} for split in rows}
    assert not texts["train"] & texts["heldout"]
    for train, heldout in (
        ({topic.name for topic in TRAIN_TOPICS}, {topic.name for topic in HELDOUT_TOPICS}),
        (set(TRAIN_THINGS), set(HELDOUT_THINGS)),
        (set(TRAIN_RECORDS), set(HELDOUT_RECORDS)),
    ):
        assert train and heldout and not train & heldout
    questions = {split: {_question(row) for row in rows[split]} - {None} for split in rows}
    assert min(map(len, questions.values())) > 100
    assert not questions["train"] & questions["heldout"]


def _question(row: dict) -> str | None:
    """What is asked, without its wording, where the checks say it all."""
    (check, *more) = row["metadata"]["checks"]
    alone = KINDS[check["kind"]].forms == ("answer",)
    return json.dumps(check, sort_keys=True) if alone and not more else None


def test_another_seed_of_the_held_out_split_stays_apart_from_training(rows) -> None:
    heldout = {row["instruction"] for row in make_instructions(1_000, 99, "heldout", max_checks=3)}
    assert not heldout & {row["instruction"] for row in rows["train"]}


def test_held_out_instructions_have_new_wordings_too(rows) -> None:
    new = [wording for kind in KINDS.values() for wording in kind.new_wordings if "{" not in wording]
    assert any(wording in row["instruction"] for row in rows["heldout"] for wording in new)
    assert not any(wording in row["instruction"] for row in rows["train"] for wording in new)
    known, later = ({w.partition("{")[0] for pair in _WORDINGS.values() for w in pair[i]} for i in (0, 1))
    assert not known & later


def test_round_after_round_continues_one_list() -> None:
    whole = make_instructions(60, 3, "train")
    assert make_instructions(20, 3, "train") == whole[:20]
    assert make_instructions(40, 3, "train", start=20) == whole[20:]
    assert [row["id"] for row in whole[:2]] == ["verifiable-train-3-000000", "verifiable-train-3-000001"]
    assert make_instructions(20, 4, "train") != whole[:20]


def test_other_processes_make_the_same_rows_and_judge_with_the_same_words() -> None:
    code = (
        "import json\n"
        "from cut_dist.verifiable import judge, make_instructions\n"
        "rows = make_instructions(300, 5, 'heldout', max_checks=3)\n"
        "said = [judge('Sure, here it is:\\n\\n1. One.', row['metadata']['checks']).judgment for row in rows]\n"
        "print(json.dumps([rows, said]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    rows, said = json.loads(outputs.pop())
    assert rows == make_instructions(300, 5, "heldout", max_checks=3)
    assert said == [judge("Sure, here it is:\n\n1. One.", row["metadata"]["checks"]).judgment for row in rows]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_combination_can_be_satisfied(rows, split: str) -> None:
    for row in rows[split][:1_500]:
        checks = make_checks(row["metadata"]["checks"])
        response = satisfying(checks)
        verdict = judge(response, checks)
        assert verdict.satisfactory, f"{row['instruction']}\n---\n{response}\n---\n{verdict.judgment}"


def test_checks_of_one_instruction_are_of_different_kinds_and_match_its_text(rows) -> None:
    for row in rows["train"][:1_000]:
        checks = make_checks(row["metadata"]["checks"])
        assert len({check.kind for check in checks}) == len(checks)
        for check in checks:
            assert any(check.sentence(wording) in row["instruction"] for wording in check.wordings)


def test_instructions_are_short(rows) -> None:
    lengths = sorted(len(row["instruction"]) for row in make_instructions(1_000, 0, "train"))
    assert lengths[500] < 110 and lengths[-1] < 300


def test_max_checks_and_kinds_narrow_the_choice() -> None:
    rows = make_instructions(100, 0, "train", max_checks=3, kinds=["min_words", "no_commas", "arithmetic"])
    assert {check["kind"] for row in rows for check in row["metadata"]["checks"]} == {
        "min_words",
        "no_commas",
        "arithmetic",
    }
    assert all(len(row["metadata"]["checks"]) == 1 for row in make_instructions(100, 0, "train", max_checks=1))


def test_too_few_kinds_for_so_many_instructions_is_said() -> None:
    with pytest.raises(ConfigError, match=r"only \d+ different train instructions can be made of palindrome; use more"):
        make_instructions(1_000, 0, "train", kinds=["palindrome"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": "test"}, "split='test': must be one of train, heldout."),
        ({"count": -1}, "count=-1: must be 0 or more."),
        ({"start": -1}, "start=-1: must be 0 or more."),
        ({"max_checks": 4}, "max_checks=4: must be 1 to 3."),
        ({"kinds": ["min_word"]}, "kinds='min_word': must be names of kinds: all_lowercase,"),
        ({"kinds": []}, "kinds=[]: must name at least one kind"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_instructions(**{"count": 1, "seed": 0, "split": "train"} | arguments)
    assert message in str(caught.value)
