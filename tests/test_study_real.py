"""The study's part with a real model, a tiny random one in its place: all its cells, made by workers of the study."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from local_models import save_tiny

from cut_dist.config_check import ConfigError
from cut_dist.config_compose import compose_config
from cut_dist.online.records import Instruction, Response, read_records
from cut_dist.study.cells import FAILED, TUNING_SEED, Cell, Results
from cut_dist.study.config import RealKeys, StudyConfig, StudyKeys
from cut_dist.study.parts import study_cells
from cut_dist.study.real_cells import METHODS, real_cells, tuned_lr
from cut_dist.study.runner import _work, results_of
from cut_dist.verifiable import judge

SIZES = ("instructions=32", "heldout=12", "max_new_tokens=24", "max_length=1024", "steps=3", "precision=fp32")


def configuration(root: Path, *overrides: str) -> StudyConfig:
    """Of one seed beside the tuning's."""
    keys = [f"study.root={root}", "study.parts=[smollm2]", *(f"study.real.{each}" for each in (*SIZES, *overrides))]
    cfg = compose_config("study", keys, StudyConfig)
    return replace(cfg, study=replace(cfg.study, seeds=1))


def work(cfg: StudyConfig, workers: int = 1) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(cfg,)) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        if process.is_alive():
            process.terminate()
    assert [process.exitcode for process in processes] == [0] * workers


@pytest.fixture(scope="module")
def study(tmp_path_factory, module_environment) -> StudyConfig:
    folder = tmp_path_factory.mktemp("study")
    cfg = configuration(folder / "root", f"model={save_tiny(folder / 'model')}")
    work(cfg, workers=2)
    return cfg


@pytest.fixture(scope="module")
def module_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("DS_ACCELERATOR", "cpu")
        yield


@pytest.fixture(scope="module")
def results(study) -> Results:
    return results_of(study)


def lab_folder(study: StudyConfig, seed: int) -> Path:
    return Path(study.study.root) / "labs" / f"real{seed}"


def test_all_cells_are_made_and_none_failed(study, results):
    assert set(results) == {cell.name for cell in study_cells(study)}
    assert not {name: results[name][FAILED] for name in results if FAILED in results[name]}
    assert {name.split("/")[2] for name in results if name.startswith("smollm2/0/")} == {
        "samples", "base", *METHODS, "cut_round2",
    }  # fmt: skip


def test_the_shares_are_what_the_checks_say_of_the_answers_on_disk(study, results):
    folder = lab_folder(study, 0)
    for run in ("base", *METHODS, "cut_round2"):
        answers = read_records(folder / "answers" / run / "responses.jsonl", Response)
        verdicts = [judge(each.response, each.metadata["checks"]) for each in answers]
        numbers = results[f"smollm2/0/{run}"]
        assert numbers["strict"] == sum(each.satisfactory for each in verdicts) / len(answers) and len(answers) == 12
        assert numbers["tokens"] == sum(each.response_tokens for each in answers) / len(answers)
    sampled = read_records(folder / "round_1" / "responses.jsonl", Response)
    right = [judge(each.response, each.metadata["checks"]).satisfactory for each in sampled]
    assert results["smollm2/0/samples"]["right"] == sum(right) / 32 > 0
    assert all(each.sampling["temperature"] == 0.7 for each in sampled)


def test_every_method_trains_and_moves_the_model(results):
    base = results["smollm2/0/base"]["perplexity"]
    others = [results[f"smollm2/0/{run}"]["perplexity"] for run in (*METHODS, "cut_round2")]
    assert len({base, *others}) == 5


def test_no_instruction_comes_twice_and_none_is_both_trained_and_measured_on(study):
    def texts(seed: int, folder: str) -> set[str]:
        rows = read_records(lab_folder(study, seed) / folder / "instructions.jsonl", Instruction)
        return {row.instruction for row in rows}

    trained, heldout = texts(0, "round_1") | texts(0, "round_2"), texts(0, "answers/base")
    tuning, dev = texts(TUNING_SEED, "round_1"), texts(TUNING_SEED, "answers/cut-lr5e-05")
    assert len(trained) == 64 and len(heldout) == 12 and len(dev) == 32
    assert all(texts(0, f"answers/{run}") == heldout for run in (*METHODS, "cut_round2"))
    assert not tuning & dev and not heldout & (trained | tuning | dev)


def test_round_two_samples_from_what_round_one_trained(study, results):
    rows = read_records(lab_folder(study, 0) / "round_2" / "responses.jsonl", Response)
    assert {Path(row.sampling["model"]).parent.name for row in rows} == {"cut"}
    assert results["smollm2/0/cut_round2"]["recipe"] == results["smollm2/0/cut"]["recipe"]


def test_refinements_are_those_of_the_judged_answers(study, results):
    folder = lab_folder(study, 0)
    refined = [json.loads(line) for line in (folder / "round_1" / "refined.jsonl").read_text().splitlines()]
    assert results["smollm2/0/samples"]["refined"] == sum(row["refinement"] is not None for row in refined) > 0
    assert all((row["refinement"] is None) == (row["judgment"] is None) for row in refined)


def test_models_are_removed_when_nothing_needs_them_any_more(study):
    for seed in (0, TUNING_SEED):
        assert not list(lab_folder(study, seed).rglob("model*.safetensors"))


def test_a_round_whose_models_are_gone_is_made_again_with_the_same_numbers(study, results):
    before = results["smollm2/0/cut_round2"]
    results.path("smollm2/0/cut_round2").unlink()
    work(study)
    assert results["smollm2/0/cut_round2"] == before


def test_the_learning_rate_is_the_best_of_the_tuning_and_of_equals_the_first(tmp_path):
    study, results = configuration(tmp_path, "lrs=[1e-5,2e-5,4e-5]").study, Results(tmp_path)
    for lr, numbers in (("1e-05", {"strict": 0.1}), ("2e-05", {"strict": 0.3}), ("4e-05", {"strict": 0.3})):
        results.write(f"smollm2/{TUNING_SEED}/cut-lr{lr}", numbers)
    assert tuned_lr(study, results, "cut") == 2e-5
    results.write(f"smollm2/{TUNING_SEED}/cut-lr2e-05", {FAILED: "no finite loss"})
    assert tuned_lr(study, results, "cut") == 4e-5


def test_results_need_only_their_own_methods_tuning(tmp_path):
    cells: dict[str, Cell] = {cell.name: cell for cell in real_cells(configuration(tmp_path).study)}
    needs = set(cells["smollm2/0/sft"].waits_for)
    assert needs == {"smollm2/0/samples", *(f"smollm2/{TUNING_SEED}/sft-lr{lr}" for lr in ("2e-05", "5e-05"))}
    assert cells["smollm2/0/base"].needs == ()


def test_the_yaml_and_the_schema_have_the_same_defaults():
    assert compose_config("study", [], StudyConfig).study == StudyKeys(real=RealKeys())


def test_a_wrong_size_is_refused_by_its_name(tmp_path):
    with pytest.raises(ConfigError, match=r"study\.real\.steps=0: must be at least 1"):
        configuration(tmp_path, "steps=0")
