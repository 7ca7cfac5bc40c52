"""What each cell of the laboratory trains on what, and measures: all of them, with stand-ins for model and trainer."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lab_answers import expected

from cut_dist.config import Config, run_dir
from cut_dist.config_compose import compose_config
from cut_dist.study import detection, judgments, lab, parts
from cut_dist.study.cells import TUNING_SEED, Results
from cut_dist.study.config import StudyConfig
from cut_dist.study.lab import Lab
from cut_dist.study.parts import ABLATIONS, METHODS, RATIOS, lab_cells
from cut_dist.study.trainer import TrainingFailed
from cut_dist.study.world import JUDGED, OTHERS, wrong_tokens

BEST = {  # candidates whose models answer everything rightly
    "cut": "cut-lr0.0003-epochs4-lam2", "ilf_mle": "ilf_mle-lr0.0001-epochs1", "rounds": "rounds-lr3e-05-epochs16-2",
    "cut_weights": "cut_weights-gamma1-alpha0.25",
}  # fmt: skip
SIZES = [
    "study.seeds=2", "study.samples=60", "study.round_samples=20", "study.rounds=2", "study.heldout=30",
    "study.pretrain_steps=2", "study.pretrain_batch=4", "train.global_batch_size=8",
]  # fmt: skip


class Recorder:
    """A trainer that trains nothing, and keeps what it was to train."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], SimpleNamespace] = {}
        self.asked: list[tuple[Path, str]] = []  # who answered, under which name

    def run(self, cfg: Config) -> Path:
        rows = [json.loads(line) for line in Path(cfg.data.path).read_text().splitlines()]
        model = run_dir(cfg) / "model"
        model.mkdir(parents=True)
        self.runs[cfg.run.experiment, cfg.run.name] = SimpleNamespace(cfg=cfg, rows=rows)
        return model


def replies(self: Lab, model: Path, asked: list[str], *, temperature: float, name: str) -> list[list[str]]:
    """Two of three answers are wrong in their first symbol, one of two after a round, none by the best candidates."""
    self._trainer.asked.append((model, name))
    made = []
    for place, text in enumerate(asked):
        task = re.search(r"Instruction: (.*)\n", text)
        right = expected(task[1] if task else text)
        share = 2 if model.parent.name == "round1" else 3
        good = place % share == 0 or any(best in str(model) for best in BEST.values())
        made.append(["refined"] if task else right if good else ["z", *right[1:]])
    return made


def records(cfg: StudyConfig, folder: Path, model: Path, rows: list[dict]) -> list[SimpleNamespace]:
    """Wrong tokens are likelier where they are blamed: tenfold, threefold against praise never read."""
    made = []
    for row in rows:
        wrong = np.array(wrong_tokens(row["response"].split(), expected(row["instruction"])))
        ratio = 3 if cfg.objective.fake_judgment == judgments.UNREAD_PRAISE else 10
        record = {"id": row["id"], "is_negative": row["judgment"] is not None}
        record["logp_authentic"] = np.where(wrong, math.log(0.1), math.log(0.5))
        record["logp_fake"] = record["logp_authentic"] - np.where(wrong, math.log(ratio), 0)
        record["logp"] = np.full(len(wrong), math.log(0.25))
        made.append(SimpleNamespace(**record))
    return made[::-1] if cfg.objective.fake_judgment == judgments.UNREAD_PRAISE else made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All cells: the configuration, their results, what was trained."""
    root = tmp_path_factory.mktemp("study")
    cfg = compose_config("study", [f"study.root={root}", *SIZES], StudyConfig)
    results, trainer = Results(root / "cells"), Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lab, "_reply", replies)
        patch.setattr(lab, "token_records", records)
        patch.setattr(detection, "token_records", records)
        for cell in lab_cells(cfg.study):
            laboratory = cell.laboratory(cfg, cell.seed, root / "labs", trainer)
            results.write(cell.name, cell.measure(laboratory, results))
    return SimpleNamespace(cfg=cfg, results=results, runs=trainer.runs, asked=trainer.asked, labs=root / "labs")


def run(made, name: str, seed: int = 0) -> SimpleNamespace:
    return made.runs[f"seed{seed}", name.replace("/", "_")]


def test_every_training_starts_from_its_seeds_base_model_but_for_later_rounds(made):
    for (folder, name), trained in made.runs.items():
        if name == "base":
            continue
        later = re.fullmatch(r"(.*round|.*rounds-lr.*-)2", name)
        start = f"{later[1]}1" if later else "base"
        assert trained.cfg.model.name_or_path == str(made.labs / folder / start / "model")
    assert not [path for path in made.labs.glob("*/*/model") if path.parent.name != "base"]  # nothing is left behind


def test_the_tuning_chooses_among_candidates_of_its_own_laboratory(made):
    assert {seed for seed, name in made.runs if name.startswith("tuning")} == {f"seed{TUNING_SEED}"}
    weighed = run(made, f"tuning/{TUNING_SEED}/cut_weights-gamma0-alpha2", TUNING_SEED).cfg
    objective = weighed.objective
    assert (objective.gamma, objective.alpha, objective.lam, weighed.train.lr) == (0, 2, 2, 3e-4)
    for method in METHODS:
        trained = run(made, f"methods/1/{method}", 1).cfg
        tuned = {"cut": (3e-4, 4), "ilf_mle": (1e-4, 1)}.get(method, (1e-5, 1))  # of equals the first
        assert (trained.train.lr, trained.train.epochs) == tuned
        assert trained.objective.name == method and (method != "cut" or trained.objective.lam == 2)
    assert (run(made, "round1").cfg.train.lr, run(made, "round1").cfg.train.epochs) == (3e-5, 16)
    assert run(made, "round2").cfg.objective.lam == 2


def test_ablations_and_weights_differ_from_cut_in_what_they_are_named_after(made):
    cut = run(made, "methods/0/cut").cfg
    for name in ABLATIONS:
        trained = run(made, f"ablations/0/{name}").cfg
        assert trained.objective.without == name and trained.train == cut.train
    like_cut = run(made, "ablations/0/hindsight_like_cut").cfg
    assert like_cut.objective.name == "hindsight" and like_cut.train == cut.train
    weights = {name: trained.cfg.objective for (seed, name), trained in made.runs.items() if "weights_0" in name}
    plain = weights["weights_0_instruction-lam5"]
    assert (plain.contrast, plain.lam) == ("instruction", 5)
    assert (weights["weights_0_gamma0.5-alpha1"].gamma, weights["weights_0_gamma0.5-alpha1"].lam) == (0.5, 2)
    together = weights["weights_0_gamma0.5-alpha1-lam1.1"]
    assert (together.gamma, together.alpha, together.lam) == (0.5, 1, 1.1)
    assert dataclasses.replace(together, gamma=1.0, lam=cut.objective.lam) == cut.objective
    tuned_too = weights["weights_0_cut_weights"]
    assert (tuned_too.gamma, tuned_too.alpha) == (1, 0.25)
    assert dataclasses.replace(tuned_too, gamma=1.0, alpha=1.0) == cut.objective
    unread = weights["weights_0_unread-praise-lam1.5"]
    assert (unread.fake_judgment, unread.lam) == (judgments.UNREAD_PRAISE, 1.5)
    assert weights["weights_0_unread-praise"].fake_judgment == judgments.UNREAD_PRAISE != cut.objective.fake_judgment


def test_judgments_are_of_the_quality_that_is_asked_for_and_so_are_refinements(made):
    rows = {quality: run(made, f"judgments/0/cut-{quality}").rows for quality in ("precise", "position", "vague")}
    for of_quality in rows.values():
        assert [row["judgment"] is None for row in of_quality] == [place % 3 == 0 for place in range(60)]
    said = {quality: {row["judgment"] for row in own} - {None} for quality, own in rows.items()}
    assert said["vague"] <= set(judgments.VAGUE)
    assert all("first" in text for text in said["position"] | said["precise"])
    assert not any(re.search("should be|instead|belongs|the right one", text) for text in said["position"])
    for row in run(made, "judgments/0/ilf_mle-wrong").rows:
        assert row["refinement"] == (None if row["judgment"] is None else "refined")
    assert made.results["judgments/0/ilf_mle-wrong"]["refined_right"] == 0
    assert "refined_right" not in made.results["judgments/0/cut-wrong"]
    mixed = run(made, "methods/0/ilf_mle").rows
    assert mixed == run(made, "methods/0/cut").rows  # all methods have the same
    assert {row["refinement"] for row in mixed} == {None, "refined"}


def test_the_ratio_is_of_align_p_to_align_n_at_equal_steps(made):
    for ratio in RATIOS:
        trained = run(made, f"align_p/0/ratio{ratio:g}")
        positive = [row for row in trained.rows if row["judgment"] is None]
        assert (len(positive), len(trained.rows) - len(positive)) == (round(ratio * 10), 10)  # 20 of 60 are right
        assert trained.cfg.train.max_steps == 4 * 60 / 8 and trained.cfg.train.lr == 3e-4
        assert made.results[f"align_p/0/ratio{ratio:g}"]["align_n"] == 10


def test_rounds_train_on_samples_of_the_model_before_and_one_training_on_as_many(made):
    online, offline = made.results["rounds/0/online"], made.results["rounds/0/offline"]
    assert [len(run(made, name).rows) for name in ("round1", "round2", "rounds/0/offline")] == [20, 20, 40]
    assert not {row["id"] for row in run(made, "round1").rows} & {row["id"] for row in run(made, "round2").rows}
    assert online["right"] == [7 / 20, 10 / 20] and online["align_n"] == pytest.approx(23) and offline["align_n"] == 26
    assert len(online["rounds"]) == 2
    like_cut, stale = (run(made, f"{name}-round2").cfg.train for name in ("like_cut", "stale"))
    assert (like_cut, stale) == (run(made, "methods/0/cut").cfg.train, run(made, "round2").cfg.train)
    asked = [(model.parent.name, name) for model, name in made.asked if model.is_relative_to(made.labs / "seed0")]
    assert {who for who, name in asked if name == "round2"} == {"round1"}
    assert {who for who, name in asked if name == "stale-round2"} == {"base"}


def test_a_training_at_once_has_as_many_of_each_kind_as_the_rounds(made):
    online, matched = made.results["rounds/1/online"], made.results["rounds/1/offline_matched"]
    rows = run(made, "rounds/1/offline_matched", 1).rows
    assert matched["align_n"] == 23 == pytest.approx(online["align_n"])
    assert sum(row["judgment"] is not None for row in rows) == 23 and len({row["id"] for row in rows}) == 40


def test_samples_that_are_too_few_of_a_kind_are_a_failed_training():
    study = SimpleNamespace(rounds=2, round_samples=20)
    wrong = [SimpleNamespace(right=False)] * 160
    poor = SimpleNamespace(cfg=SimpleNamespace(study=study), seed=0, base=None, sample=lambda *_: wrong)
    with pytest.raises(TrainingFailed, match="40 samples are wanted: of 160 .* 23 wrong and 0 "):
        parts._offline_matched(poor, {"rounds/0/online": {"align_n": 23.0}})


def test_a_model_is_measured_on_answers_to_judged_and_other_families(made):
    numbers = made.results["base/0"]
    own = Lab(made.cfg, 0, made.labs, trainer=None)._items("heldout", made.cfg.study.heldout, JUDGED)
    assert numbers["accuracy"] == numbers["sampled"] == 10 / 30
    habits = [place % 3 == 0 for place, item in enumerate(own) if item.habit]
    assert numbers["habits"] == pytest.approx(sum(habits) / len(habits))
    assert numbers["others"] == pytest.approx(4 / 10)  # places 30, 33, 36, 39 of all
    assert numbers["perplexity_right"] == pytest.approx(4)  # of p = 1/4
    assert set(numbers["families"]) <= {*JUDGED, *OTHERS}
    assert made.results["methods/0/sft"]["accuracy"] == 10 / 30
    assert made.results[f"tuning/{TUNING_SEED}/{BEST['cut']}"]["others"] == 1


def test_detection_counts_the_contexts_of_each_contrast(made):
    numbers = made.results["detection/1"]
    contrasts = ("fake", "instruction", "unread")
    at = {contrast: {point["lam"]: point for point in numbers[contrast]} for contrast in contrasts}
    assert at["fake"][5.0]["precision"] == at["fake"][5.0]["recall"] == 1  # tenfold
    assert at["unread"][2.5]["recall"] == 1 and at["unread"][4.0]["recall"] == 0  # threefold
    assert at["instruction"][1.1]["recall"] == at["instruction"][1.1]["precision"] == 0  # marks right tokens
    assert numbers["mean_p"]["wrong"]["authentic"] == pytest.approx(0.1)
    assert set(made.results["sizes/0/400k"]) >= {*contrasts, "accuracy"}
    assert made.runs["seed0-400k", "base"].cfg.model.random_init["num_hidden_layers"] == 2

