"""Intervals, and a report whose sentences follow the numbers both ways."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from cut_dist.config_compose import compose_config
from cut_dist.study import findings, runner
from cut_dist.study.cells import DESIGN, FAILED, MACHINE, Results
from cut_dist.study.config import StudyConfig
from cut_dist.study.detection import quality
from cut_dist.study.names import name_of
from cut_dist.study.parts import ABLATIONS, study_cells
from cut_dist.study.report import gather, write_report
from cut_dist.study.runner import _claim
from cut_dist.study.sections import sections
from cut_dist.study.statistics import difference, interval
from cut_dist.study.trainer import TrainingFailed
from cut_dist.study.tuning import tuned


def test_an_interval_by_hand():
    # of 1, 2, 3: mean 2, standard deviation 1, t(0.975, 2) = 4.30265, half = 4.30265 / √3
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.low == pytest.approx(2 - 2.48414, abs=1e-4)
    assert found.high == pytest.approx(2 + 2.48414, abs=1e-4)
    assert not found.apart() and interval([3.0, 3.1, 3.2]).apart()
    assert math.isnan(interval([1.0]).low) and math.isnan(interval([]).mean)


def test_a_difference_is_paired():
    assert difference(interval([1.0, 5.0, 9.0]), interval([0.5, 4.5, 8.5])).low == pytest.approx(0.5)
    some = difference(interval([1.0, 9.0], [0, 2]), interval([8.5, 4.5], [2, 1]))
    assert (some.values, some.seeds) == ((0.5,), (2,)) and math.isnan(some.low)


def test_precision_and_recall_by_hand():
    wrong, marked = np.array([1, 1, 0, 0, 0], bool), np.array([1, 0, 1, 0, 0], bool)
    assert quality(wrong, marked) == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "share": 0.4}
    assert quality(wrong, np.zeros(5, bool)) == {"precision": 1.0, "recall": 0.0, "f1": 0.0, "share": 0.0}


def accuracies(**means: float) -> dict:
    return {name: {"accuracy": interval([m - 0.01, m, m + 0.01]), "others": interval([0.9, 0.9, 0.9])}
            for name, m in means.items()}  # fmt: skip


def test_the_lead_of_cut_is_claimed_only_where_it_is():
    ahead = findings.methods(accuracies(base=0.3, sft=0.6, cut=0.8), ["sft"])
    behind = findings.methods(accuracies(base=0.3, sft=0.8, cut=0.6), ["sft"])
    assert "at least 5: yes; told from 0: yes; the intervals of the two apart: yes" in ahead[0] and "+20.0" in ahead[0]
    assert "at least 5: no; told from 0: no; the intervals of the two apart: no" in behind[0] and "-20.0" in behind[0]


def test_a_paired_lead_is_not_two_intervals_apart():
    seeds = {"cut": [0.9, 0.7, 0.8], "sft": [0.82, 0.62, 0.72]}
    said = findings.methods({name: {"accuracy": interval(xs)} for name, xs in seeds.items()}, ["sft"])
    assert "at least 5: yes; told from 0: yes; the intervals of the two apart: no" in said[0]


def test_seeds_that_failed_in_one_row_leave_the_pairs_of_the_others_right():
    levels = {"cut": (0.9, 0.5, 0.7), "sft": (0.8, 0.4, 0.6)}
    cells = {f"methods/{seed}/{name}": {"accuracy": x} for name, xs in levels.items() for seed, x in enumerate(xs)}
    cells |= {"methods/0/cut": {FAILED: "x"}, "methods/1/sft": {FAILED: "x"}}  # as many values, of other seeds
    gap = findings.lead(gather(cells)["methods"], "cut", "sft")
    assert gap.seeds == (2,) and gap.mean == pytest.approx(0.1)
    cells["methods/2/sft"] = {FAILED: "x"}
    assert findings.lead(gather(cells)["methods"], "cut", "sft") is None


def test_the_order_of_the_ablations_is_held_against_both_columns_of_the_paper():
    papers = accuracies(detection=0.0, l1=0.3, l2_align_n=0.5, dynamic_weight=0.7, cut=0.8)
    said = findings.ablations(papers, ABLATIONS)
    assert said[0].startswith("Against CUT: without detection -80.0")
    assert said[-1].startswith("Between neighbours: without L1 − without detection +30.0")
    assert said[-3:-1] == [
        "Worst first: without detection, without L1, without L2 of Align-N, without dynamic weight. By the paper's "
        "TruthfulQA: the same.",
        "Worst first: without detection, without L1, without L2 of Align-N, without dynamic weight. By the paper's "
        "RLsum: another, without detection, without L2 of Align-N, without L1, without dynamic weight.",
    ]
    assert "None is told apart" in findings.ablations(accuracies(detection=0.8, l1=0.8, cut=0.8), ABLATIONS)[-1]


def test_another_setting_is_recommended_only_where_it_is_told_apart():
    made = accuracies(best=0.9, other=0.4)
    table = accuracies(base=0.3, cut=0.8) | {"gamma0-alpha1": made["best"], "fake-lam5": made["other"]}
    assert findings.weights(table)[0].startswith("Candidate: γ = 0, α = 1.")
    table["gamma0-alpha1"] = {"accuracy": interval([0.9, 0.7, 0.83])}
    assert findings.weights(table)[0].startswith("CUT stays as it was tuned. γ = 0, α = 1 has the best")
    assert findings.weights(accuracies(base=0.3, cut=0.8)) == []


def test_rounds_and_detection_are_told_both_ways():
    assert "points, ahead" in findings.rounds(accuracies(online=0.8, offline=0.6))[0]
    assert "behind" in findings.rounds(accuracies(online=0.6, offline=0.8))[0]
    both = findings.rounds(accuracies(online=0.7, offline=0.8, offline_matched=0.6))
    assert "behind" in both[0] and "kinds as in the rounds" in both[1] and "ahead" in both[1] and len(both) == 2
    made = accuracies(online=0.7, online_like_cut=0.9, offline=0.8)
    for row in made.values():
        row["sampled"] = row["accuracy"]
    said = findings.rounds(made)
    assert [line.split(": ")[0] for line in said] == [
        "online rounds − one offline training", "online rounds, as CUT is tuned − one offline training",
        "online rounds, as CUT is tuned − online rounds",
    ]  # fmt: skip
    assert "ahead; sampled +10.0" in said[1]
    measures = ("precision", "recall", "f1")
    row = {f"fake.{lam:g}.{m}": interval([v, v]) for lam, v in ((1.1, 0.9), (2.0, 0.5)) for m in measures}
    said = findings.detection(row, {"fake": "its name"})[0]
    assert said.startswith("its name: best F1 at λ = 1.1") and said.endswith("yes.")
    low = {name: interval([0.7, 0.7]) for name in row}
    assert "no." in findings.detection(low, {"fake": "its name"})[0]


@pytest.fixture
def cfg(tmp_path) -> StudyConfig:
    keys = [f"study.root={tmp_path}", f"study.results={tmp_path / 'results'}", "study.seeds=2"]
    return compose_config("study", keys, StudyConfig)


def made_up(name: str) -> dict:
    """Numbers of a cell, higher for CUT."""
    part, seed, *what = name.split("/")
    level = (0.8 if "cut" in name else 0.5) + 0.01 * int(seed[-1])
    numbers = dict.fromkeys(("accuracy", "sampled", "strict", "loose"), level)
    numbers |= {"others": 0.9, "perplexity_others": 1.1}
    if part in ("detection", "sizes"):
        curve = [{"lam": lam, "precision": 0.9, "recall": 0.8, "f1": 0.85, "share": 0.1} for lam in (1.1, 2.0)]
        numbers |= {"fake": curve, "instruction": curve}
    if what == ["online"]:
        numbers["rounds"] = [{"accuracy": level}, {"accuracy": level + 0.1}]
    if part in ("rounds", "align_p"):
        numbers["align_n"] = 90
    lr = float(re.search(r"-lr([\d.]+(e-\d+)?)", name)[1]) if "-lr" in name else 1e-4
    if part == "tuning":
        numbers["families"] = {"sort": level - lr}
    return numbers | {"recipe": {"objective": {"name": "cut"}, "train": {"lr": lr}}}


def test_a_whole_report_of_made_up_numbers(cfg, tmp_path):
    cells, results = study_cells(cfg), Results(tmp_path / "cells")
    for cell in cells:
        results.write(cell.name, made_up(cell.name))
    folder = write_report(cfg, cells, results)
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers["parts"]["methods"]["cut"]["accuracy"]["values"] == [0.8, 0.81]
    html = (folder / "report.html").read_text()
    for part in ("methods", "ablations", "rounds", "detection", "sizes", "judgments", "weights", "align_p", "smollm2"):
        assert sections(gather(results), cfg.study.real)[part].title.split(" (")[0] in html
    assert "<script" not in html and "Not measured yet" not in html
    drawn = {path.stem for path in folder.glob("*.svg")}
    assert html.count("<svg") == len(drawn) and {"methods", "weights_lambda", "weights_gamma_alpha"} <= drawn
    for path in folder.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # one element, a file
        assert '<rect width="100%" height="100%" fill="#fff"/>' in path.read_text()
    assert numbers["tuned"]["sft"]["train"] == {"lr": 1e-4}
    assert {"smollm2 cut", "smollm2 cut_round2"} <= set(numbers["tuned"])
    chosen = html.rpartition("What the tuning chose")[2]
    assert "0.0001" in chosen and "lr (least)" in chosen and "sft-lr1e-05-epochs16, 50.0" in chosen
    assert len(numbers["tuning"]["cut_weights"]) == 8 and "cut_weights" in numbers["tuned"]
    assert "CUT, γ and α tuned too − best baseline (" in html
    assert [row["lr"] for row in numbers["tuning"]["sft"]][::3] == cfg.study.lrs  # all of them, the best first
    assert {"rounds", "cut_weights", "ilf_dpo", "smollm2 cut"} <= set(numbers["tuning"])


def test_a_report_keeps_what_another_study_with_the_same_settings_found(cfg, tmp_path, caplog):
    """The parts of one report may come from several commands, on several machines."""

    def report(root: str, *parts: str, **keys) -> dict:
        own = replace(cfg, study=replace(cfg.study, root=str(tmp_path / root), parts=list(parts), **keys))
        cells, results = study_cells(own), Results(tmp_path / root / "cells")
        _claim(own, cells)
        for cell in cells:
            results.write(cell.name, made_up(cell.name))
        return json.loads((write_report(own, cells, results) / "numbers.json").read_text())["parts"]

    assert set(report("one", "methods")) == {"base", "samples", "methods"}
    assert set(report("two", "smollm2")) == {"base", "samples", "methods", "smollm2"}
    assert set(report("three", "sizes")) == {"base", "samples", "methods", "sizes", "smollm2"}
    assert not caplog.records
    assert set(report("four", "ablations")) == {"base", "samples", "ablations", "sizes", "smollm2"}  # of other models
    assert "cells of another study leave the report, such as methods/0/" in caplog.text
    assert set(report("five", "sizes", heldout=60)) == {"sizes", "smollm2"}


@pytest.mark.parametrize(
    ("row", "name"),
    [("unread-praise-lam1.5", "praise never read, λ = 1.5"), ("gamma0.5-alpha1-lam1.1", "γ = 0.5, α = 1, λ = 1.1"),
     ("cut-precise", "CUT, precise"), ("smollm2 cut_round2", "smollm2, CUT, 2 rounds"), ("rounds", "CUT in rounds"),
     ("fake-lam1.1", "contrast=fake, λ = 1.1"), ("ratio0.25", "0.25 Align-P for each Align-N"),
     ("400k, contrast=fake, λ = 0.5", "400k, contrast=fake, λ = 0.5"), ("unread-praise", "praise never read")],
)  # fmt: skip
def test_rows_are_called_what_people_read(row, name):
    assert name_of(row) == name


@pytest.mark.parametrize("design", [DESIGN, DESIGN - 1])
def test_numbers_of_another_design_are_told_from_those_that_the_code_makes(cfg, tmp_path, monkeypatch, design):
    monkeypatch.setattr(runner, "DESIGN", design)
    _claim(cfg, study_cells(cfg))
    html = (write_report(cfg, study_cells(cfg), Results(tmp_path / "cells")) / "report.html").read_text()
    assert (f"numbers are of its design {design}" in html) == (design != DESIGN)


def test_a_part_that_was_not_measured_is_left_out_and_a_failure_named(cfg, tmp_path):
    results = Results(tmp_path / "cells")
    cells = [cell for cell in study_cells(cfg) if cell.name.startswith(("base/", "methods/"))]
    for cell in cells:
        results.write(cell.name, made_up(cell.name))
    results.write("methods/1/ilf_dpo", {FAILED: "the loss was not finite"})
    html = (write_report(cfg, cells, results) / "report.html").read_text()
    assert "Failed, and in no row: methods/1/ilf_dpo." in html
    assert "Ablations" not in html and "the loss was not finite" in html
    assert "Not measured yet: ablations, rounds, detection, sizes, judgments, weights, align_p, smollm2." in html


def test_cells_need_only_cells_that_are_there_and_come_after_them(cfg):
    names = [cell.name for cell in study_cells(cfg)]
    assert len(set(names)) == len(names)
    for place, cell in enumerate(study_cells(cfg)):
        assert set(cell.waits_for) <= set(names[:place]), cell.name


def test_a_part_comes_with_what_it_needs(cfg):
    cfg.study.parts = ["methods"]
    parts = {cell.name.split("/")[0] for cell in study_cells(cfg)}
    assert parts == {"base", "samples", "tuning", "methods"}


def test_tuning_takes_the_best_and_of_equals_the_first(cfg, tmp_path):
    results = Results(tmp_path / "cells")
    cells = [cell.name for cell in study_cells(cfg) if "/hindsight-" in cell.name]
    for name in cells:
        results.write(name, {"families": {"sort": 0.5, "copy": 0.5}})
    results.write(cells[0], {FAILED: "diverged"})
    assert tuned(cfg.study, results, method="hindsight").train == {"lr": 1e-5, "epochs": 4.0}
    with pytest.raises(TrainingFailed, match="none of the candidates of sft"):
        for cell in study_cells(cfg):
            if "/sft-" in cell.name:
                results.write(cell.name, {FAILED: "diverged"})
        tuned(cfg.study, results, method="sft")
    results.write(cells[-1], {"accuracy": 0.7, "families": {"sort": 0.7, "copy": 0.4}})
    assert tuned(cfg.study, results, method="hindsight").train == {"lr": 1e-3, "epochs": 16.0}
    results.write(cells[-1], {"accuracy": 0.9, "families": {"sort": 0.9, "copy": 0.0}})  # ruins what was never judged
    assert tuned(cfg.study, results, method="hindsight").train == {"lr": 1e-5, "epochs": 4.0}


def test_a_report_of_what_is_done_says_what_is_not(cfg, tmp_path):
    cells = study_cells(cfg)
    results = Results(tmp_path / "cells")
    results.write("base/0", {"accuracy": 0.5})
    folder = write_report(cfg, cells, results)
    assert f"{len(cells) - 1} cells of the parts" in (folder / "report.html").read_text()
    assert len(json.loads((folder / "numbers.json").read_text())["missing"]) == len(cells) - 1


def test_each_machine_is_told_with_what_it_measured(cfg, tmp_path):
    results = Results(tmp_path / "cells")
    one, other = ({"processor": name, "cores": 2} for name in ("one", "other"))
    for name, machine in (("base/0", one), ("base/1", other), ("samples/0", one)):
        results.write(name, {"accuracy": 0.5, MACHINE: machine})
    assert set(gather(results)["base"]["base"]) == {"accuracy"}  # a machine's cores are no measure
    folder = write_report(cfg, study_cells(cfg), results)
    assert json.loads((folder / "numbers.json").read_text())["machines"] == [
        {"machine": one, "cells": {"base": 1, "samples": 1}},
        {"machine": other, "cells": {"base": 1}},
    ]
    assert "other" in (folder / "report.html").read_text().rpartition("What was run")[2]


def test_the_report_tells_the_settings_of_the_cells_and_not_those_of_the_last_command(cfg, tmp_path):
    """The real model's part and the laboratory's are claimed apart, and run by different commands."""
    real = replace(cfg, study=replace(cfg.study, real=replace(cfg.study.real, steps=77), parts=["smollm2"]))
    _claim(real, study_cells(real))
    results = Results(tmp_path / "cells")
    for cell in study_cells(real):
        results.write(cell.name, made_up(cell.name))
    html = (write_report(cfg, study_cells(cfg), results) / "report.html").read_text()
    assert "77 steps of 8" in html
