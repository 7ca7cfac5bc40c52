"""W&B without a network: what it wrote is read back from its own file; its failures never reach training."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cut_dist import tracker
from cut_dist.tracker import NoTracker, WandbTracker, make_tracker

CANARY = "canary-0123456789abcdef0123456789abcdef"
VARIABLES = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR", "NETRC")


def settings(**changes) -> SimpleNamespace:
    defaults = {
        "name": "wandb",
        "mode": "offline",
        "project": "cut",
        "entity": None,
        "group": "g",
        "tags": ["a", "b"],
    }
    return SimpleNamespace(**defaults | changes)


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))


@pytest.fixture
def run_dir(tmp_path) -> Path:
    path = tmp_path / "runs" / "quickstart" / "default"
    path.mkdir(parents=True)
    return path


def read_records(path: Path) -> Iterator:
    """The protobuf records of a .wandb file: a 7-byte header, then LevelDB's log format in 32 KiB blocks."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]  # 1 whole, 2 first, 3 middle, 4 last part of a record
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def offline_file(run_dir: Path) -> Path:
    (path,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    return path


def finished_records(run_dir: Path) -> list:
    """All records of a finished run, for whose last bytes W&B's helper process may need a moment more."""
    for _ in range(100):
        records = list(read_records(offline_file(run_dir)))
        if any(record.HasField("exit") for record in records):
            break
        time.sleep(0.1)
    return records


def items(entries) -> dict:
    return {entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


def test_an_offline_run_holds_everything_and_no_secret(run_dir, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setattr(sys, "argv", ["train.py", f"judge.key={CANARY}"])
    config = {"objective": {"lam": 1.1}, "judge": {"api_key": "hidden-value"}, "note": f"key {CANARY}"}
    run = make_tracker(settings(), run_dir, config)
    assert isinstance(run, WandbTracker)
    for step in (1, 2, 1):  # a resumed run goes back; W&B must drop nothing
        run.log({"train/loss": 1.0 / step, "train/nan": float("nan")}, step)
    run.log_generations(
        [{"prompt": "hello", "before": "a", "after": "b"}, {"prompt": "bye", "before": "c"}], 2
    )
    run.log_generations([], 2)
    run.finish()

    records = finished_records(run_dir)
    (start,) = [record.run for record in records if record.HasField("run")]
    assert (start.project, start.run_group, list(start.tags)) == ("cut", "g", ["a", "b"])
    assert start.display_name == "quickstart/default"
    assert start.run_id == (run_dir / "wandb_id.txt").read_text().strip()
    shown = items(start.config.update)
    assert (
        shown["objective"] == {"lam": 1.1}
        and shown["judge"] == {"api_key": "***"}
        and shown["note"] == "key ***"
    )
    history = [items(record.history.item) for record in records if record.HasField("history")]
    assert [(line["train/global_step"], line.get("train/loss")) for line in history] == [
        (1, 1.0),
        (2, 0.5),
        (1, 1.0),
        (2, None),
    ]
    metrics = [record.metric for record in records if record.HasField("metric")]
    assert any(metric.glob_name == "*" and metric.step_metric == "train/global_step" for metric in metrics)
    (table,) = (run_dir / "wandb").rglob("*.table.json")
    assert json.loads(table.read_text()) == {
        "columns": ["step", "prompt", "before", "after"],
        "data": [[2, "hello", "a", "b"], [2, "bye", "c", None]],
    }
    for path in run_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert CANARY.encode() not in content and b"hidden-value" not in content, path
    assert "wandb sync" in caplog.text and CANARY not in caplog.text


def test_a_second_start_continues_the_same_run(run_dir):
    for step in (1, 2):
        run = make_tracker(settings(), run_dir, {})
        run.log({"train/loss": 1.0}, step)
        run.finish()
        folders = sorted((run_dir / "wandb").glob("offline-run-*"))
    names = {path.name for folder in folders for path in folder.glob("run-*.wandb")}
    assert names == {f"run-{(run_dir / 'wandb_id.txt').read_text().strip()}.wandb"}


@pytest.mark.parametrize("status", [0, 1])
def test_how_the_run_ended_is_told(run_dir, status):
    make_tracker(settings(), run_dir, {}).finish(status)
    (end,) = [record.exit for record in finished_records(run_dir) if record.HasField("exit")]
    assert end.exit_code == status


def test_the_group_is_the_experiment_unless_given(run_dir):
    make_tracker(settings(group=None), run_dir, {}).finish()
    groups = {record.run.run_group for record in finished_records(run_dir) if record.HasField("run")}
    assert groups == {"quickstart"}


# ---- which mode


def test_mode_follows_the_key(monkeypatch, tmp_path):
    def mode(asked: str = "auto") -> str:
        return tracker._wandb_mode(asked)[0]

    assert (mode(), mode("online"), mode("offline")) == ("offline", "online", "offline")
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    assert tracker._wandb_mode("auto") == ("online", "WANDB_API_KEY is set") and mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mode() == "offline" and mode("online") == "online"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert tracker._wandb_mode("auto") == ("offline", "WANDB_MODE=dryrun")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert mode() == "offline"
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password x\n")
    assert mode() == "online"
    (tmp_path / "netrc").write_text("not a netrc file {")
    assert mode() == "offline"


@pytest.mark.parametrize("mode", ["auto", "online", "offline"])
def test_wandb_switched_off_in_the_environment_stays_off(run_dir, wandb_init, monkeypatch, caplog, mode):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    run = make_tracker(settings(mode=mode), run_dir, {})
    assert isinstance(run, NoTracker) and wandb_init.tried == [] and list(run_dir.iterdir()) == []
    assert "WANDB_MODE=disabled" in caplog.text
    run.finish(1)


def test_unknown_names_are_refused_with_the_choices(run_dir):
    with pytest.raises(ValueError, match="'tensorboard'.*wandb, none"):
        make_tracker(settings(name="tensorboard"), run_dir, {})
    with pytest.raises(ValueError, match="'dryrun'.*auto, online or offline"):
        make_tracker(settings(mode="dryrun"), run_dir, {})


# ---- failures


@pytest.fixture
def wandb_init(monkeypatch):
    """Lets a test say which modes fail; returns the modes tried."""
    import wandb

    tried, failing = [], set()
    real = wandb.init

    def init(**arguments):
        tried.append(arguments["mode"])
        if arguments["mode"] in failing:
            raise wandb.errors.CommError(f"no route to host, key {CANARY}")
        return real(**arguments)

    monkeypatch.setattr(wandb, "init", init)
    return SimpleNamespace(tried=tried, failing=failing)


def test_without_a_network_an_online_run_goes_offline(run_dir, wandb_init, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    wandb_init.failing.add("online")
    run = make_tracker(settings(mode="auto"), run_dir, {})
    run.log({"train/loss": 1.0}, 1)
    run.finish()
    assert wandb_init.tried == ["online", "offline"] and offline_file(run_dir).stat().st_size > 0
    assert "could not start online" in caplog.text and "no route to host" in caplog.text
    assert CANARY not in caplog.text


def test_if_wandb_can_not_start_at_all_training_goes_on(run_dir, wandb_init, caplog):
    wandb_init.failing.update(("online", "offline"))
    run = make_tracker(settings(mode="online"), run_dir, {})
    assert isinstance(run, NoTracker) and "W&B IS OFF" in caplog.text
    run.log({"train/loss": 1.0}, 1)
    run.log_generations([{"a": 1}], 1)
    run.finish()


def test_if_wandb_is_not_installed_training_goes_on(run_dir, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert isinstance(make_tracker(settings(), run_dir, {}), NoTracker)
    assert "ModuleNotFoundError" in caplog.text and "W&B IS OFF" in caplog.text


def test_a_failure_in_the_middle_is_said_once(caplog):
    class Broken:
        def log(self, metrics):
            raise BrokenPipeError("the service is gone")

        def finish(self, exit_code):
            raise AssertionError("not asked any more")

    run = WandbTracker(Broken())
    for step in range(3):
        run.log({"train/loss": 1.0}, step)
    run.log_generations([{"a": 1}], 3)
    run.finish()
    assert caplog.text.count("the service is gone") == 1


def test_none_does_nothing_and_nothing_imports_wandb_early(run_dir):
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace; from cut_dist import tracker;"
        "run = tracker.make_tracker(SimpleNamespace(name='none'), Path(sys.argv[1]), {});"
        "run.log({}, 1); run.log_generations([{}], 1); run.finish(); assert 'wandb' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(tracker.__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", code, str(run_dir)], check=True, env=environment)
    assert list(run_dir.iterdir()) == []
