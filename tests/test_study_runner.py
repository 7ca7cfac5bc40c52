"""How cells are taken and kept: one process each, failures as results, defects not."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
from filelock import FileLock

from cut_dist.config import ConfigError
from cut_dist.config_compose import compose_config
from cut_dist.data.prepare import prepare
from cut_dist.data.triplets import DataError, NoRowsLeft
from cut_dist.run_folder import RunFolderError
from cut_dist.study import judgments, runner, token_records, trainer
from cut_dist.study.cells import FAILED, MACHINE, TUNING_SEED, Cell, Results
from cut_dist.study.config import StudyConfig, StudyKeys
from cut_dist.study.lab import Lab, Sample
from cut_dist.study.parts import study_cells
from cut_dist.study.rows import data_config
from cut_dist.study.tokenizer import make_tokenizer
from cut_dist.study.trainer import StopAtOnce, Stopped, Trainer, TrainingFailed, discard
from cut_dist.study.world import JUDGED


@pytest.fixture
def cfg(tmp_path) -> StudyConfig:
    return compose_config("study", [f"study.root={tmp_path}"], StudyConfig)


def cell(measure) -> Cell:
    return Cell("part/0/what", 0, measure, (), lambda *_: "the laboratory")


def take(cfg: StudyConfig, measure) -> bool:
    return runner._take(cfg, cell(measure), runner.results_of(cfg), trainer=None)


def numbers(cfg: StudyConfig, name: str = "part/0/what") -> dict:
    """What a cell found, without what every cell says."""
    found = runner.results_of(cfg)[name]
    assert found.pop(MACHINE)["packages"]["torch"]
    return found


def fail(error: Exception):
    def measure(*_):
        raise error

    return measure


def test_a_cell_is_made_once_and_given_its_laboratory_and_the_results(cfg):
    given = []
    assert take(cfg, lambda lab, results: given.append((lab, type(results))) or {"accuracy": 0.5})
    assert given == [("the laboratory", Results)]
    assert numbers(cfg) == {"accuracy": 0.5}
    assert not take(cfg, fail(AssertionError("made a second time")))


def test_a_cell_that_another_process_is_at_is_left_to_it(cfg, tmp_path):
    lock = tmp_path / "cells" / "part" / "0" / "what.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert not take(cfg, fail(AssertionError("it is taken")))
    assert "part/0/what" not in runner.results_of(cfg)
    assert take(cfg, lambda *_: {})


def test_a_training_that_came_to_nothing_is_a_result_and_a_defect_is_none(cfg):
    with pytest.raises(ZeroDivisionError):
        take(cfg, fail(ZeroDivisionError()))
    assert "part/0/what" not in runner.results_of(cfg)
    assert take(cfg, fail(TrainingFailed("the loss was not finite")))
    assert numbers(cfg) == {FAILED: "the loss was not finite"}


def test_a_worker_that_is_asked_to_stop_ends_at_once_and_its_cell_is_begun_anew(cfg):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        StopAtOnce()
        with pytest.raises(Stopped):
            take(cfg, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGINT)  # the second, while the first is cleaned up
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "part/0/what" not in runner.results_of(cfg)
    assert take(cfg, lambda *_: {"accuracy": 0.5})


def test_results_are_the_files_that_are_whole(tmp_path):
    results = Results(tmp_path)
    results.write("part/0/a", {"x": 1})
    (tmp_path / "part" / "0" / "b.lock").touch()
    assert [*results] == ["part/0/a"] and len(results) == 1
    assert json.loads((tmp_path / "part/0/a.json").read_text()) == {"x": 1}
    with pytest.raises(KeyError, match="part/0/b"):
        results["part/0/b"]


def test_without_scipy_it_ends_at_once_with_the_remedy(cfg, monkeypatch, tmp_path):
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"need scipy: pip install 'cut-dist\[study\]'"):
        runner.run_study(cfg)
    assert not (tmp_path / "cells").exists()


def test_a_folder_with_other_settings_is_refused_and_more_seeds_are_not(cfg):
    runner._claim(cfg, study_cells(cfg))
    more = replace(cfg, study=replace(cfg.study, seeds=9, workers=1, parts=["methods"]))
    runner._claim(more, study_cells(more))
    with pytest.raises(RunFolderError, match="(?s)study.samples: 600 → 700.*choose another study.root") as refused:
        runner._claim(replace(cfg, study=replace(cfg.study, samples=700)), study_cells(cfg))
    assert "study.heldout" not in str(refused.value)


def test_settings_of_the_real_model_and_of_the_laboratory_are_claimed_apart(cfg):
    runner._claim(cfg, study_cells(cfg))
    larger = replace(cfg, study=replace(cfg.study, parts=["methods"], real=replace(cfg.study.real, steps=99)))
    runner._claim(larger, study_cells(larger))
    real = replace(larger, study=replace(larger.study, parts=["smollm2"], samples=700))
    with pytest.raises(RunFolderError, match=f"study.real.steps: {cfg.study.real.steps} → 99") as refused:
        runner._claim(real, study_cells(real))
    assert "study.samples" not in str(refused.value)


def test_a_missing_real_model_is_told_before_anything_is_made(cfg, tmp_path):
    real = replace(cfg.study.real, model=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="study.real.model: There is no model folder .*list the other parts"):
        runner.run_study(replace(cfg, study=replace(cfg.study, parts=["smollm2"], real=real)))
    assert not (tmp_path / "cells").exists()


def test_what_the_user_can_mend_is_no_result(cfg):
    with pytest.raises(ConfigError):
        take(cfg, fail(ConfigError("train.lr must be above 0")))
    assert "part/0/what" not in runner.results_of(cfg)


def test_a_file_that_is_gone_is_no_result_and_one_without_a_row_to_train_on_is(cfg):
    with pytest.raises(DataError):
        take(cfg, fail(DataError("triplets.jsonl: no such file")))
    assert "part/0/what" not in runner.results_of(cfg)
    assert take(cfg, fail(NoRowsLeft("no row is left to train on")))
    assert numbers(cfg) == {FAILED: "no row is left to train on"}


@pytest.mark.parametrize("text", ["", '{"instruction": "copy 1", "response": "", "judgment": "this is not right ."}\n'])
def test_rows_none_of_which_can_be_used_are_a_result(cfg, tmp_path, text):
    """As a model leaves them that answers nothing."""
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    tokenizer = make_tokenizer()
    assert take(cfg, lambda *_: prepare(data_config(path, tmp_path), tokenizer, seed=0, fake_judgment="all right ."))
    assert "rows.jsonl" in numbers(cfg)[FAILED]


@pytest.mark.parametrize(
    ("status", "written", "error"),
    [(1, None, RunFolderError), (1, "metrics.jsonl", TrainingFailed), (0, "metrics.jsonl", Stopped)],
)
def test_a_training_that_was_refused_or_stopped_has_not_failed(cfg, tmp_path, monkeypatch, status, written, error):
    folder = tmp_path / "seed0" / "cut"

    def train_with(*_):
        folder.mkdir(parents=True)
        if written:
            (folder / written).touch()
        return status

    for name, instead in (("train_with", train_with), ("prepare_data", lambda *_: None), ("load_tokenizer", str)):
        monkeypatch.setattr(trainer, name, instead)
    worker = Trainer()
    worker._ranks = worker._stop = None
    with pytest.raises(error):
        worker.run(replace(cfg, run=replace(cfg.run, root=str(tmp_path), experiment="seed0", name="cut")))


def test_a_removal_that_was_interrupted_leaves_no_half_of_a_model(tmp_path):
    (tmp_path / "cut.gone" / "model").mkdir(parents=True)  # of a removal before
    (tmp_path / "cut" / "model").mkdir(parents=True)
    discard(tmp_path / "cut")
    assert not list(tmp_path.iterdir())


def test_a_random_judgment_is_that_of_another_response(cfg, tmp_path):
    lab = Lab(cfg, 0, tmp_path, trainer=None)
    items = lab._items("samples", 40, JUDGED)
    samples = [Sample(f"samples-{i}", item, ["wrong", str(i)]) for i, item in enumerate(items)]
    own = [row["judgment"] for row in lab.judged(samples, "precise")]
    marked = [f"{i} {judgment}" for i, judgment in enumerate(own)]
    told = iter(marked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judgments, "judge", lambda *_: next(told))
        given = [row["judgment"] for row in lab.judged(samples, "random")]
    assert sorted(given) == sorted(marked) and not [a for a, b in zip(given, marked) if a == b]


def test_a_part_that_is_none_is_refused_by_name(cfg):
    with pytest.raises(ConfigError, match="study.parts='method': must be one of base, .*methods.*smollm2"):
        study_cells(replace(cfg, study=replace(cfg.study, parts=["method"])))


def test_a_row_of_a_part_is_made_with_what_it_needs_and_no_more(cfg):
    chosen = study_cells(replace(cfg, study=replace(cfg.study, parts=["weights/cut_weights"], seeds=1)))
    rows = [cell.name for cell in chosen if not cell.name.startswith("tuning")]
    assert rows == ["base/1000", "samples/1000", "base/0", "samples/0", "weights/0/cut_weights"]
    assert {cell.name.split("-")[0] for cell in chosen} - {*rows} == {"tuning/1000/cut", "tuning/1000/cut_weights"}


def test_processes_that_measure_in_one_laboratory_have_files_of_their_own(cfg, tmp_path, monkeypatch):
    """What one has written, the other must not replace before it is read."""
    seen = []
    monkeypatch.setattr(token_records, "load_tokenizer", lambda _: None)
    monkeypatch.setattr(token_records, "measure", lambda cfg, rows: [])
    empty = SimpleNamespace(train=[])
    monkeypatch.setattr(token_records, "prepare", lambda data, *_, **__: seen.append(data.path) or empty)
    for _ in range(2):
        token_records.token_records(cfg, tmp_path, tmp_path, [])
    assert len(set(seen)) == 2 and not list(tmp_path.glob("measured*"))


def test_a_cell_whose_base_model_failed_says_so_and_a_failed_candidate_stops_nothing(cfg):
    results = runner.results_of(cfg)
    needs = ("base/0", f"tuning/{TUNING_SEED}/cut-lr1")
    results.write(needs[1], {FAILED: "the loss was not finite"})
    results.write(needs[0], {"accuracy": 0.5})
    made = Cell("part/0/made", 0, lambda *_: {"accuracy": 1.0}, needs[:1], lambda *_: None, needs[1:])
    assert runner._take(cfg, made, results, trainer=None) and numbers(cfg, "part/0/made") == {"accuracy": 1.0}
    results.write(needs[0], {FAILED: "the loss was not finite"})
    candidate = replace(made, name="tuning/1000/cut-lr1", needs=(f"samples/{TUNING_SEED}",))
    results.write(candidate.needs[0], {FAILED: "it needs base/1000, which failed"})
    assert runner._without_its_needs(candidate, results) == {FAILED: "it needs samples/1000, which failed"}
    lost = replace(made, name="part/0/lost")
    assert runner._take(cfg, lost, results, trainer=None)
    assert numbers(cfg, "part/0/lost") == {FAILED: "it needs base/0, which failed"}


@pytest.mark.parametrize(
    ("key", "said"),
    [("study.lrs=[]", "study.lrs=.*numbers above 0"), ("study.epochs=[0]", "study.epochs=.*numbers above 0"),
     ("study.real.lrs=[-1.0]", "study.real.lrs=.*numbers above 0"), ("+study.sizes.x={layers: 2}", "sizes.x.*layers"),
     ("study.real.max_new_tokens=512", "study.real.max_new_tokens=512: must be less than study.real.max_length=512"),
     ("study.root=", "study.root='': must name a folder")],
)  # fmt: skip
def test_what_no_cell_could_be_made_with_is_refused_at_once(key, said):
    with pytest.raises(ConfigError, match=said):
        compose_config("study", [key], StudyConfig)


@pytest.mark.parametrize(
    ("key", "said"),
    [("objective=sft", "objective='sft': must be cut"), ("objective.without=l1", "objective.without='l1': is set by"),
     ("+experiment=smoke", "train.max_steps=10: must be null"), ("model=smollm2_135m", "model=.*random_init"),
     ("study.root={file}/study", "study.root=.*Not a directory. Choose another"),
     ("study.results={file}", "study.results=.*File exists. Choose another")],
)  # fmt: skip
def test_what_only_a_start_would_find_is_refused_before_a_cell_is_made(key, said, tmp_path):
    (tmp_path / "file").touch()
    folders = [f"study.root={tmp_path / 'study'}", f"study.results={tmp_path / 'results'}"]
    cfg = compose_config("study", [*folders, "study.parts=[base]", key.format(file=tmp_path / "file")], StudyConfig)
    with pytest.raises(ConfigError, match=said):
        runner.run_study(cfg)


def test_a_size_is_the_name_of_a_folder():
    with pytest.raises(ConfigError, match="study.sizes='a b'.*must be 1 to 64"):
        StudyKeys(sizes={"a b": {"num_hidden_layers": 2}})


def test_samples_are_kept_and_a_training_is_found_or_begun_anew(cfg, tmp_path, monkeypatch):
    answers = iter([[["1"], ["2"]]])
    lab = Lab(cfg, 0, tmp_path, trainer=None)
    monkeypatch.setattr(lab, "_answer", lambda *_, **__: next(answers))
    lab.folder.mkdir()
    first = lab.sample(tmp_path, "round1", 2)
    assert lab.sample(tmp_path, "round1", 2) == first and [s.response for s in first] == [["1"], ["2"]]

    trained = replace(cfg, run=replace(cfg.run, root=str(tmp_path), experiment="seed0", name="cut"))
    (model := tmp_path / "seed0" / "cut" / "model").mkdir(parents=True)
    assert Trainer().run(trained) == model
    model.rmdir()
    with pytest.raises(DataError):  # conf/study.yaml names no file that is there
        Trainer().run(replace(trained, model=replace(cfg.model, tokenizer="bytes")))
    assert not model.parent.exists()
