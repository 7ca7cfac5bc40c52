"""The command line: mistakes in one sentence with exit status 2, the same on every rank, no files, no heavy imports."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cut_dist.cli import hydra_entry
from cut_dist.config import Config, ConfigError, PreviewJobConfig
from cut_dist.config_compose import compose_config
from cut_dist.data.triplets import DataError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Each test runs in an empty folder, as the only rank."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)


def run(*argv: str, job=lambda cfg: 0, entry: str = "train", schema=Config) -> int:
    with pytest.raises(SystemExit) as caught:
        hydra_entry(entry, job, schema, argv=argv)
    return caught.value.code


def never(cfg: Config) -> int:
    raise AssertionError("the job must not start")


def test_the_job_gets_the_configuration_and_gives_the_exit_status():
    seen = []
    assert run("+experiment=smoke", "objective.lam=1.2", job=lambda cfg: seen.append(cfg) or 7) == 7
    assert isinstance(seen[0], Config)
    assert (seen[0].objective.lam, seen[0].run.experiment) == (1.2, "smoke")
    assert run(job=lambda cfg: None) == 0


def test_a_composed_configuration_is_taken_whole_with_values_on_top(tmp_path):
    cfg = compose_config("train", ["+experiment=smoke", "deepspeed=zero2", "objective.lam=1.2"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(cfg)))
    seen = []
    assert run("--config-file=config.yaml", job=lambda cfg: seen.append(cfg) or 0) == 0
    assert seen == [cfg]
    assert run("--config-file=config.yaml", "objective.lam=2", "run.name=b", job=lambda cfg: seen.append(cfg) or 0) == 0
    cfg.objective.lam, cfg.run.name = 2.0, "b"
    assert seen[1] == cfg


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--config-file=none.yaml"], "--config-file=none.yaml: [Errno 2] No such file"),
        (["--config-file=text.yaml"], "text.yaml: is no configuration; give the config.yaml"),
        (["--config-file=part.yaml"], "'model' is missing"),
        (["--config-file=part.yaml", "+experiment=smoke"], "a composed configuration takes KEY=VALUE"),
        (["--config-file=part.yaml", "objective.lamda=1"], "did you mean 'objective.lam'?"),
        (["--config-file=part.yaml", "--config-dir=."], "it takes nothing from --config-dir"),
    ],
)
def test_a_composed_configuration_that_is_none_is_said(argv, said, tmp_path, capsys):
    (tmp_path / "text.yaml").write_text("only text")
    (tmp_path / "part.yaml").write_text("seed: 1")
    assert run(*argv, job=never) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--local_rank=3"], ["--local-rank=3"], ["--local_rank", "3"], []])
@pytest.mark.parametrize("place", [0, 1])
def test_the_launchers_local_rank_is_left_out(flags: list[str], place: int):
    seen = []
    argv = ["+experiment=smoke", "seed=7"]
    argv[place:place] = flags
    assert run(*argv, job=lambda cfg: seen.append(cfg) or 0) == 0
    assert seen[0] == compose_config("train", ["+experiment=smoke", "seed=7"])


def test_the_preview_has_a_section_of_its_own():
    seen = []
    run("+experiment=smoke", "preview.count=2", entry="preview", schema=PreviewJobConfig, job=seen.append)
    assert seen[0].preview.count == 2
    assert run("preview.count=2", job=never) == 2


# What is typed, and what the one sentence must say.
MISTAKES = {
    "objective.lamda=1": "did you mean 'objective.lam'?",
    "+objective.lamda=1": "did you mean 'objective.lam'?",
    "++objective.lamda=1": "did you mean 'objective.lam'?",
    "objective.lambda=1.2": "did you mean 'objective.lam'?",
    "lr=1e-5": "There is no key 'lr'; did you mean 'train.lr'?",
    "lam=1.2": "did you mean 'objective.lam'?",
    "lambda=1.2": "did you mean 'objective.lam'?",
    "learning_rate=1e-5": "did you mean 'train.lr'?",
    "name=mine": "'objective.name' or 'tracker.name' or 'run.name' or 'sweep.name'?",
    "api_key=hunter2": "come from the environment",
    "objectve.lam=1": "did you mean 'objective'?",
    "+typo=3": "There is no key 'typo'. Keys of the configuration: checkpoint, data,",
    "+experimnt=smoke": "did you mean 'experiment'?",
    "+experiment=online_rund2": "There is no experiment 'online_rund2'; did you mean 'online_round2'? There are:",
    "+experiment=": "There is no experiment ''. There are:",
    "experiment=smoke": "Write +experiment=smoke with the +",
    "model=smolm2": "There is no model 'smolm2'; did you mean 'smollm2_135m'? There are: lab, llama2_13b,",
    "model=gpt2": "Any other: model.name_or_path=<folder or Hub name>.",
    "data=mine.jsonl": "Your own file: data=jsonl data.path=<file>.",
    "model=null": "There is no model 'null'",
    "+model=tiny_random": "Write model=tiny_random without the +",
    "deepspeed=zero4": "There is no deepspeed 'zero4'; did you mean 'zero",
    "+objective.lam=1": "Write objective.lam=1 without the +",
    "objective.lam=abc": "objective.lam='abc': must be a number",
    "objective.lam=-1": "objective.lam=-1.0: must be more than 0",
    "objective.lam='1.2'": "objective.lam='1.2': must be a number",
    "objective.lam=null": "objective.lam=null: must be a number",
    "objective.lam.x=1": "'objective.lam' is one value",
    "objective.contrast=fak": "did you mean 'fake'?",
    "objective.lam=1,2": "a sweep: try all with -m, give one",
    "objective.lam=range(1,3)": "a sweep: try all with -m, give one",
    "+experiment=smoke,quickstart": "a sweep: try all with -m, give one",
    "train.max_steps=1.5": "must be a whole number or null",
    "train.schedule=constnt": "did you mean 'constant'?",
    "data=jsonl": "No value yet for data.path: add data.path=... to the command",
    "data.path=${nothing}": "Interpolation key 'nothing' not found",
    "data.path=a=b": "can't be read: write key=value",
    "smoke": "Did you mean +experiment=smoke?",
    "+model._target_=os.system": "'model._target_' is refused: a configuration names no code",
    "+deepspeed.aio._target_=os.system": "'deepspeed.aio._target_' is refused: a configuration names no code",
    "+_target_=os.system": "'_target_' is refused: a configuration names no code",
    "+deepspeed.train_batch_size=8": "set train.global_batch_size",
    "+deepspeed.optimizer.type=Adam": "set train.lr",
    "+deepspeed.zero_optimisation.stage=3": "did you mean 'deepspeed.zero_optimization'?",
    "deepspeed.zero_optimization.stge=3": "did you mean 'deepspeed.zero_optimization.stage'? If not, +deepspeed",
    "model.random_init.hidden_size=8": "+model.random_init.hidden_size=8 adds it",
    "+tracker.api_key=hunter2": "come from the environment",
    "run.name=..": "run.name='..': must be 1 to 64 of",
    "run.name=a/b": "run.name='a/b'",
    "run.experiment=/abs": "run.experiment='/abs'",
    "run.name=1e5": "quote it to keep it as typed",
    "sweep.jobs_at_a_time=0": "sweep.jobs_at_a_time=0: must be at least 1",
    "sweep.direction=minimise": "sweep.direction='minimise': must be one of min, max; did you mean 'min'?",
    "sweep.name=a/b": "sweep.name='a/b': must be 1 to 64 of",
    "sweep.root=": "sweep.root='': must be the path of a folder",
    "sweep.submitit={nodes: 1}": "is read only with sweep.cluster=slurm",
    "hydra.run.dir=x": "Hydra itself has nothing to set",
    "hydra/launcher=basic": "Hydra itself has nothing to set",
    "+hydra.callbacks.x._target_=os.system": "Hydra itself has nothing to set",
    "~data.path": "'data.path' is missing",
    "-m": "--multirun is not offered here",
    "--multirun": "--multirun is not offered here",
    "--config-dri=x": "did you mean --config-dir?",
    "--config-dir=nowhere": "--config-dir=nowhere: there is no such folder",
    "--cfg": "Argument --cfg/-c: expected one argument",
    "--cfg=all": "invalid choice: 'all'",
}  # fmt: skip


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_status_2(typed: str, capsys):
    assert run(typed, job=never) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert MISTAKES[typed] in err
    assert "Traceback" not in err and "hunter2" not in err


def test_only_rank_0_says_it_and_all_ranks_exit_alike(monkeypatch, capsys):
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    assert run("+typo=3", job=never) == 2
    assert capsys.readouterr().err.startswith("error: ") and not waited
    monkeypatch.setenv("RANK", "3")
    assert run("+typo=3", job=never) == 2
    assert capsys.readouterr() == ("", "")
    assert waited, "the launcher would end rank 0 before it has spoken"


def test_a_mistake_in_ones_own_experiment_is_explained_too(tmp_path, capsys):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    mine = tmp_path / "mine" / "experiment" / "mine.yaml"
    header = "# @package _global_\n"
    mine.write_text(header + "defaults:\n  - override /model: smollm2\n")
    assert run("--config-dir=mine", "+experiment=mine", job=never) == 2
    assert "defaults list: There is no model 'smollm2'; did you mean 'smollm2_135m'?" in capsys.readouterr().err
    mine.write_text(header + "objective:\n  lambda: 1.2\n")
    assert run("--config-dir=mine", "+experiment=mine", job=never) == 2
    assert "'objective.lambda'; did you mean 'objective.lam'?" in capsys.readouterr().err
    mine.write_text(header + "objective: [\n")
    assert run("--config-dir=mine", "+experiment=mine", job=never) == 2
    assert "mine.yaml" in capsys.readouterr().err


# Hydra's own section in a yaml of one's own, and the key that is refused in it.
CODE_FOR_HYDRA = {
    "# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: os.abort\n": "hydra.callbacks.x._target_",
    "# @package _global_\nhydra:\n  launcher:\n    _target_: os.abort\n": "hydra.launcher._target_",
    "# @package _global_\nhydra:\n  sweeper:\n    _target_: os.abort\n": "hydra.sweeper._target_",
    "# @package _global_\nhydra:\n  job_logging:\n    handlers: {x: [{_target_: os.abort}]}\n": "x[0]._target_",
    "# @package hydra.callbacks.y\n_target_: os.abort\n": "hydra.callbacks.y._target_",
}


@pytest.mark.parametrize("text", CODE_FOR_HYDRA)
@pytest.mark.parametrize("group", ["experiment", "data"])
def test_a_yaml_names_no_code_for_hydra_either(text: str, group: str, tmp_path, capsys):
    (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / group / "mine.yaml").write_text(text)
    chosen = "+experiment=mine" if group == "experiment" else "data=mine"
    assert run("--config-dir=mine", chosen, job=never) == 2
    error = capsys.readouterr().err
    assert CODE_FOR_HYDRA[text] in error and "is refused: a configuration names no code" in error


def test_what_else_a_yaml_says_to_hydra_is_read_by_nothing(tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    mine = tmp_path / "mine" / "experiment" / "mine.yaml"
    mine.write_text("# @package _global_\nhydra:\n  sweeper: null\n  run:\n    dir: x\n")
    assert run("--config-dir=mine", "+experiment=mine", "data=quickstart") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_ones_own_experiments_and_members_stand_beside_the_projects(tmp_path, capsys):
    folder = tmp_path / "it's mine, too"
    for group in ("experiment", "data"):
        (folder / group).mkdir(parents=True)
    (folder / "data" / "ours.yaml").write_text("path: ours.jsonl\nheldout_size: 4\n")
    (folder / "experiment" / "first.yaml").write_text(
        "# @package _global_\ndefaults:\n  - smoke\n  - override /data: ours\nrun:\n  experiment: first\n"
    )
    seen = []
    run("-cd", str(folder), "+experiment=first", "train.max_steps=3", job=seen.append)
    assert (seen[0].data.path, seen[0].run.experiment, seen[0].train.max_steps) == ("ours.jsonl", "first", 3)
    assert run("--config-dir", str(folder), "+experiment=frst", job=never) == 2
    assert "did you mean 'first'?" in capsys.readouterr().err


def test_cfg_prints_the_configuration_as_the_job_would_get_it(capsys):
    assert run("--cfg", "job", "+experiment=smoke", "objective.lam=1.2", job=never) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["objective"]["lam"] == 1.2
    assert printed["run"]["name"].startswith("lam-1.2_")
    assert compose_config("train", ["+experiment=smoke", "objective.lam=1.2"]).train.lr == printed["train"]["lr"]


def test_help_lists_every_choice(capsys):
    assert run("--help", job=never) == 0
    printed = capsys.readouterr().out
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert f" {path.stem}" in printed, path
    assert all(len(line) <= 110 for line in printed.splitlines()[1:])


# --- errors of the job itself ---


def test_a_problem_of_the_users_data_is_told_without_a_traceback_by_the_rank_that_has_it(monkeypatch, capsys):
    def job(cfg: Config) -> int:
        raise DataError("t.jsonl:3: no response")

    assert run(job=job) == 1
    assert capsys.readouterr().err == "error: t.jsonl:3: no response\n"
    monkeypatch.setenv("RANK", "2")
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    assert run(job=job) == 1
    assert capsys.readouterr().err == "error: [rank 2] t.jsonl:3: no response\n"
    assert waited == [5.0], "time for rank 0 to say it for all"


def test_a_port_that_torch_finds_taken_is_one_sentence(monkeypatch, capsys):
    from torch.distributed import DistNetworkError

    def job(cfg: Config) -> int:
        raise DistNetworkError("failed to listen on any local network address. port: 29500, name: EADDRINUSE")

    monkeypatch.setenv("MASTER_PORT", "29500")
    assert run(job=job) == 1
    assert "--master_port 29501" in capsys.readouterr().err


def test_a_configuration_that_only_the_job_can_judge_is_exit_status_2(capsys):
    def job(cfg: Config) -> int:
        raise ConfigError("data.template=chat: this tokenizer has no chat template.")

    assert run(job=job) == 2
    assert "no chat template" in capsys.readouterr().err


def test_any_other_error_keeps_its_traceback():
    def job(cfg: Config) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hydra_entry("train", job, argv=[])


# --- the scripts themselves ---


@pytest.mark.parametrize("script", ["train", "preview"])
def test_a_script_answers_without_torch_and_leaves_no_file(script: str, tmp_path):
    """Run from another folder, uninstalled, as the launcher starts it."""
    watch = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}.py', '--local_rank=0', '+experiment=online_rund2']\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'launch' / f'{script}.py')!r}, run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'torch', 'deepspeed', 'transformers', 'datasets', 'wandb'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    ran = subprocess.run([sys.executable, "-c", watch], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2, ran.stderr
    assert "did you mean 'online_round2'?" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_composing_leaves_no_file(tmp_path):
    assert run("+experiment=smoke") == 0
    assert list(tmp_path.iterdir()) == []


def test_an_installed_package_brings_its_own_conf(tmp_path):
    """As setup.py lays it out: conf/ inside the package, nothing of the checkout beside it."""
    package = tmp_path / "site" / "cut_dist"
    shutil.copytree(ROOT / "cut_dist", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", package / "conf")
    code = (
        "from cut_dist.config_compose import compose_config, conf_dir\n"
        "print(conf_dir())\n"
        "print(compose_config('train', ['+experiment=smoke']).data.path)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(package / "conf"), str(package / "assets" / "quickstart" / "train.jsonl")]
