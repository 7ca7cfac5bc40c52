"""Which jobs a command means: Hydra's grammar, names, an experiment's own grid, and what is refused at once."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from cut_dist.config import ConfigError
from cut_dist.config_check import is_name
from cut_dist.config_compose import compose_config
from cut_dist.run_folder import RunFolderError
from cut_dist.sweep.folder import create_folders, record_plan
from cut_dist.sweep.grid import job_name
from cut_dist.sweep.plan import Request, Sweep, plan


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def planned(*overrides: str, config_dir: str | None = None) -> Sweep:
    return plan(Request(partial(compose_config, "train", config_dir=config_dir), overrides))


def recorded(*overrides: str) -> Sweep:
    sweep = planned(*overrides)
    create_folders(sweep)
    record_plan(sweep)
    return sweep


def test_the_papers_command_is_its_grid():
    Path("data").mkdir()
    Path("data/x.json").write_text("[]")
    sweep = planned("+experiment=online_round2", "objective.lam=1.1,1.2", "objective.alpha=0.25,0.5,1",
                    "objective.gamma=0.25,0.5,1,2", "data.path=data/x.json")  # fmt: skip
    assert len(sweep.jobs) == 24
    first, last = sweep.jobs[0], sweep.jobs[-1]
    assert first.name == "alpha-0.25_gamma-0.25_lam-1.1" and sweep.jobs[1].name == "alpha-0.25_gamma-0.5_lam-1.1"
    assert str(last.folder) == "sweeps/online_round2/alpha-1_gamma-2_lam-1.2"
    assert (last.cfg.objective.lam, last.cfg.objective.alpha, last.cfg.objective.gamma) == (1.2, 1.0, 2.0)
    assert last.cfg.model.name_or_path == "runs/online_round1/default/model", "run.root is the user's for the inputs"
    assert (last.cfg.run.root, last.cfg.run.experiment) == ("sweeps", "online_round2")
    assert sweep.swept["objective.gamma"] == ["0.25", "0.5", "1", "2"]


def test_the_shipped_papers_sweep_is_the_same_grid_without_anything_typed():
    Path("data/cut_online").mkdir(parents=True)
    Path("data/cut_online/iter1.json").write_text("[]")
    sweep = planned("+experiment=sweep_paper")
    values = {(job.cfg.objective.lam, job.cfg.objective.alpha, job.cfg.objective.gamma) for job in sweep.jobs}
    assert values == {(lam, a, g) for lam in (1.1, 1.2) for a in (0.25, 0.5, 1) for g in (0.25, 0.5, 1, 2)}
    assert sweep.name == "sweep_paper"


def test_what_is_typed_wins_over_the_experiments_grid():
    assert len(planned("+experiment=sweep_smoke").jobs) == 8
    sweep = planned("+experiment=sweep_smoke", "objective.lam=2", "objective.alpha=0.1,0.2,0.3")
    assert list(sweep.swept) == ["objective.gamma", "objective.alpha"]
    assert len(sweep.jobs) == 6 and {job.cfg.objective.lam for job in sweep.jobs} == {2.0}


GRAMMAR = {  # override → the values it lists
    "objective.lam=1.1,1.2": ["1.1", "1.2"],
    "objective.lam=choice(1.1,1.2)": ["1.1", "1.2"],
    "objective.lam=range(1,2,0.5)": ["1.0", "1.5"],
    "seed=range(3)": ["0", "1", "2"],
    "objective.fake_judgment='a, b',c": ["'a, b'", "c"],
    "deepspeed=zero2,zero3": ["zero2", "zero3"],
    "deepspeed=glob(zero*,exclude=zero3*)": ["zero0", "zero1", "zero2"],
    "objective.lam=sort(1.2,1.1)": ["1.1", "1.2"],
    "seed=1": ["1"],
}


@pytest.mark.parametrize("typed", GRAMMAR)
def test_values_are_listed_as_in_hydra(typed):
    sweep = planned("+experiment=smoke", "train.max_steps=1,2", typed)
    key = typed.partition("=")[0]
    assert sweep.swept.get(key, GRAMMAR[typed]) == GRAMMAR[typed]
    assert len(sweep.jobs) == 2 * len(GRAMMAR[typed])


def test_a_key_typed_twice_means_what_is_typed_last():
    assert planned("+experiment=smoke", "objective.lam=1,2", "objective.lam=3,4,5").swept == {
        "objective.lam": ["3", "4", "5"]
    }
    sweep = planned("+experiment=smoke", "objective.lam=1,2", "objective.lam=3", "seed=1,2")
    assert list(sweep.swept) == ["seed"] and sweep.jobs[0].cfg.objective.lam == 3


def test_experiments_and_groups_can_be_swept():
    sweep = planned("+experiment=smoke,sweep_smoke", "deepspeed=zero2,zero3", "sweep.name=both", "sweep.params={}")
    assert [job.name for job in sweep.jobs][0] == "deepspeed-zero2_experiment-smoke"
    assert sweep.jobs[0].overrides == {"experiment": "smoke", "deepspeed": "zero2"}
    assert {job.cfg.deepspeed["zero_optimization"]["stage"] for job in sweep.jobs} == {2, 3}


NAMES = {
    "alpha-0.25_gamma-1_lam-1.1": {"objective.lam": "1.1", "objective.gamma": "1", "objective.alpha": "0.25"},
    "deepspeed-zero2_lr-1e-05": {"deepspeed": "zero2", "train.lr": "1e-05"},
    "objective.name-cut_tracker.name-none": {"objective.name": "cut", "tracker.name": "none"},
    "experiment-smoke": {"+experiment": "smoke"},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_made_of_the_swept_keys(name):
    assert job_name(NAMES[name]) == name


@pytest.mark.parametrize("value", ["-1", "a/b.json", "'x, y'", "1.", "x" * 80, "é", "..", "a=b", "[1,2]"])
def test_a_name_that_cant_show_its_value_has_a_hash_and_is_a_name(value):
    one, other = job_name({"data.path": value}), job_name({"data.path": f"{value}2"})
    assert is_name(one) and is_name(other) and one != other and len(one) <= 64


MISTAKES = {  # overrides of +experiment=smoke → what the one sentence says
    (): "Nothing is swept: give several values",
    ("objective.lam=1,1",): "lists 1 twice",
    ("objective.lam=1,1.0",): "Jobs lam-1 and lam-1.0 are the same configuration",
    ("objective.lam=interval(1,2)",): "to search an interval, python launch/sweep.py hydra/sweeper=optuna",
    ("run.name=a,b",): "a sweep can't try values of 'run.name'",
    ("sweep.root=a,b",): "a sweep can't try values of 'sweep.root'",
    ("run.name=mine", "seed=1,2"): "to name the sweep itself, sweep.name=",
    ("run.resume=never", "seed=1,2"): "give another sweep.name",
    ("sweep.name=../x", "seed=1,2"): "sweep.name='../x'",
    ("objective.lamda=1,2",): "did you mean 'objective.lam'?",
    ("objective.lam=1.1,abc",): "Job lam-abc: objective.lam='abc': must be a number",
    ("data.path=no.jsonl,nor.jsonl",): "Job path-no: no.jsonl: no such file",
    ("deepspeed=zero2,zero9",): "Job deepspeed-zero9: There is no deepspeed 'zero9'",
    ("sweep.params={seed: [1, 2]}",): "write the values as on the command line",
    ("sweep.params={sede: '1,2'}",): "There is no key 'sede'",
    ("hydra/sweeper=optuna", "seed=1,2"): "another sweeper drives `python launch/sweep.py` only",
}


@pytest.mark.parametrize("overrides", MISTAKES, ids=" ".join)
def test_a_mistake_is_told_before_any_job_starts_and_names_the_job(overrides, tmp_path):
    with pytest.raises(ConfigError) as caught:
        planned("+experiment=smoke", *overrides)
    assert MISTAKES[overrides] in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


# --- a sweep that is there already ---


def test_a_sweep_may_grow_and_keeps_what_it_has():
    recorded("+experiment=smoke", "objective.lam=1,2", "seed=1,2")
    sweep = recorded("+experiment=smoke", "objective.lam=2,3", "seed=1,2", "sweep.jobs_at_a_time=2")
    plan = json.loads((sweep.folder / "sweep.json").read_text())
    assert plan["swept"] == {"objective.lam": ["1", "2", "3"], "seed": ["1", "2"]}
    assert [job["index"] for job in plan["jobs"]] == list(range(6))
    assert [job["name"] for job in plan["jobs"]][4:] == ["lam-3_seed-1", "lam-3_seed-2"]


def test_a_secret_on_the_command_line_is_not_written_down(monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "sk-0123456789")
    monkeypatch.setattr("sys.argv", ["launch/train.py", "-m", "seed=1,2", "run.experiment=sk-0123456789"])
    sweep = recorded("+experiment=smoke", "seed=1,2")
    assert "sk-0123456789" not in (sweep.folder / "sweep.json").read_text()


def test_another_configuration_under_the_same_name_is_refused_with_the_difference():
    recorded("+experiment=smoke", "objective.lam=1,2")
    with pytest.raises(RunFolderError, match=r"train.max_steps: 10 → 3\n.*choose another sweep.name"):
        recorded("+experiment=smoke", "objective.lam=1,2", "train.max_steps=3")
    with pytest.raises(ConfigError, match=r"is a sweep over objective.lam, not over objective.lam, seed"):
        recorded("+experiment=smoke", "objective.lam=1,2", "seed=1,2")
    recorded("+experiment=smoke", "objective.lam=1,2", "train.max_steps=3", "sweep.name=shorter")


def test_a_jobs_file_composes_to_what_was_planned():
    from cut_dist.config_compose import read_config

    sweep = recorded("+experiment=smoke", "deepspeed=zero2,zero3", "objective.lam=1.5")
    for job in sweep.jobs:
        assert read_config(job.folder / "composed.yaml") == job.cfg
