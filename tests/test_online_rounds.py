"""The loop of the rounds: each stage once, in order, gone on with after a kill, a stop or a failure."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from online_stand_ins import OVERRIDES, config

from cut_dist.config import Config
from cut_dist.online.files import RoundFiles
from cut_dist.online.rounds import Loop, stage_config
from cut_dist.online.summary import read_rounds

SCRIPT = Path(__file__).with_name("online_stand_ins.py")
EVALUATION = ["generate", "evaluate"]  # the answers first, over all ranks
STAGES = [*EVALUATION, *["generate", "train", *EVALUATION] * 2]  # the stand-ins of two rounds, in order


def start(root: Path, *overrides: str) -> subprocess.Popen:
    root.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), "loop", str(root), *overrides]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen, status: int = 0) -> str:
    output = process.communicate(timeout=120)[0]
    assert process.returncode == status, output
    return output


def online(root: Path) -> Path:
    return root / "runs" / "online_smoke" / os.listdir(root / "runs" / "online_smoke")[0]


def results(root: Path) -> dict[str, bytes]:
    """What two ways to the end must agree in."""
    folder = online(root)
    names = ["instructions.jsonl", "responses.jsonl", "judgments.jsonl", "triplets.jsonl", "train/metrics.jsonl"]
    paths = [folder / f"round_{number}" / name for number in (1, 2) for name in names]
    paths += sorted(folder.glob("round_*/evaluation/evaluation.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """The folder is always called the same: the model's path is part of what the stand-ins make."""
    root = tmp_path_factory.mktemp("unbroken")
    os.chdir(root)
    finish(start(Path("work")))
    return root / "work"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("work")


def test_two_rounds_from_beginning_to_end(unbroken):
    assert (unbroken / "started").read_text().split() == STAGES
    folder = online(unbroken)
    rounds = read_rounds(folder)
    assert [each.number for each in rounds] == [0, 1, 2]
    for each in rounds[1:]:
        assert (each.responses, each.judged, each.steps, each.trained) == (8, 8, 2, True)
        assert each.counts["satisfactory"] + each.counts["unsatisfactory"] == 8
    assert rounds[2].counts["from_earlier_rounds"] == 4
    first, second = ((folder / f"round_{number}" / "instructions.jsonl").read_text() for number in (1, 2))
    assert not set(first.splitlines()) & set(second.splitlines())
    assert (folder / "report.html").exists() and (folder / "finished.json").exists()


def test_started_again_it_has_nothing_to_do_and_more_rounds_may_be_added(unbroken):
    os.chdir(unbroken.parent)
    before = results(unbroken)
    finish(start(Path("work")))
    assert (unbroken / "started").read_text().split() == STAGES
    finish(start(Path("work"), "online.rounds=3"))
    assert (unbroken / "started").read_text().split() == [*STAGES, "generate", "train", *EVALUATION]
    assert results(unbroken).items() >= before.items()


def test_killed_at_random_moments_it_ends_with_the_same_bytes(unbroken, here):
    draw, kills, survived = random.Random(1), 0, False
    while not survived:
        process = start(here)
        try:
            process.wait(timeout=draw.uniform(0.8, 3.5) if kills < 8 else 120)
            survived = True
        except subprocess.TimeoutExpired:
            process.kill()  # the loop alone: its stage ends with it
            process.wait()
            kills += 1
    assert process.returncode == 0, process.stdout.read()
    assert kills >= 5
    assert results(here) == {name: data for name, data in results(unbroken).items() if "round_3" not in name}
    generated = Counter((here / "generated").read_text().split())
    assert sum(generated.values()) <= 16 + 3 * 3 + kills  # a row under way when the kill came is made again, no other


def test_stopped_by_a_signal_it_ends_with_75_and_goes_on(here):
    for number, wait in ((signal.SIGINT, 2.0), (signal.SIGTERM, 4.0)):
        process = start(here)
        time.sleep(wait)
        process.send_signal(number)
        assert "the same command goes on" in finish(process, 75)
    finish(start(here))
    processes = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in processes if str(SCRIPT).encode() in line or b"work/launch" in line]


def test_a_stage_that_fails_is_shown_and_tried_again(here):
    here.mkdir()
    (here / "fail").write_text("train")
    said = finish(start(here), 1)
    assert "train of round 1 ended with status 1" in said and "no such luck" in said
    (here / "fail").unlink()
    finish(start(here))
    assert Counter((here / "started").read_text().split()) == Counter([*STAGES, "train"])


def test_another_configuration_is_refused_by_name(unbroken):
    os.chdir(unbroken.parent)
    name = online(unbroken).name
    said = finish(start(Path("work"), f"run.name={name}", "generator.temperature=1", "judge.max_set_aside=1"), 1)
    assert "generator.temperature: 0.7 → 1.0" in said and "max_set_aside" not in said


def test_an_evaluation_with_other_settings_is_not_taken_for_done(unbroken, here):
    shutil.copytree(unbroken, here)
    (here / "started").write_text("")
    for _ in range(2):
        finish(start(here, "evaluation.max_new_tokens=9"))
        assert (here / "started").read_text().split() == ["evaluate"] * 3


def test_a_round_trains_as_the_configuration_says_on_its_own_triplets(tmp_path):
    cfg = config(tmp_path)
    files = RoundFiles(tmp_path / "online", 2)
    model = dataclasses.replace(cfg.model, name_or_path="before", random_init=None, tokenizer=None)
    train = stage_config(cfg, "train", files, model)
    assert type(train) is Config
    assert (train.model, train.data.path) == (model, str(files.triplets))
    assert (train.objective, train.train, train.deepspeed) == (cfg.objective, cfg.train, cfg.deepspeed)
    assert Path(train.run.root) / train.run.experiment / train.run.name == files.training
    assert train.tracker.group == f"online_smoke-{cfg.run.name}"


def test_anew_means_the_rounds_and_not_each_start_of_a_training(unbroken, here):
    cfg = config(here, "run.resume=never")
    assert stage_config(cfg, "train", RoundFiles(here, 1), cfg.model).run.resume == "auto"
    finish(start(here, "online.rounds=1"))
    finish(start(here, "online.rounds=1", "run.resume=never"))
    folders = sorted(path.name for path in (here / "runs" / "online_smoke").iterdir())
    assert len(folders) == 2 and folders[1] == f"{folders[0]}.previous-1"
    for folder in folders:
        assert (here / "runs" / "online_smoke" / folder / "finished.json").exists()


def test_a_launcher_that_is_not_there_is_named(here):
    said = finish(start(here, "online.launcher=[no-such-launcher]"), 1)
    assert "no-such-launcher can't be started (No such file or directory): see online.launcher" in said


@pytest.mark.parametrize(
    ("given", "kept"), [(["--master_port", "29999"], True), (["--master_port=29999"], True), ([], False)]
)
def test_a_port_that_the_launcher_is_given_stays(given, kept, tmp_path):
    cfg = config(tmp_path)
    cfg.online.launcher = ["deepspeed", *given]
    command = Loop(cfg, tmp_path, None, lambda: False)._starter("train")
    assert (command[1:] == given) == kept and command[1].startswith("--master_port")


def test_the_overrides_of_these_tests_are_the_shipped_experiment_made_smaller():
    assert OVERRIDES[0] == "+experiment=online_smoke"
