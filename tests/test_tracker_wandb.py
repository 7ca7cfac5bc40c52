"""W&B without a network: what it wrote is read back from its own file; its failures never reach training."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from wandb_file import artifacts, finished_records, items, offline_file

from cut_dist import tracker_wandb
from cut_dist.config import TrackerConfig
from cut_dist.lineage import finish_lineage, model_record, parent_run, read_lineage, write_lineage
from cut_dist.tracker import TrackedRun, Tracker, make_tracker
from cut_dist.tracker_wandb import WandbTracker

CANARY = "canary-0123456789abcdef0123456789abcdef"
VARIABLES = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR", "NETRC")


def start(folder: Path, config: dict | None = None, *, step: int = 0, **changes) -> Tracker:
    """The tracker of the run in `folder`, as the recorder makes it."""
    cfg = TrackerConfig(**{"mode": "offline", "project": "cut", "group": "g", "tags": ["a", "b"]} | changes)
    config = {"data": {"path": "nowhere.jsonl", "heldout_path": None}} | (config or {})
    return make_tracker(cfg, TrackedRun(folder, config, read_lineage(folder) or {}, step))


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))


@pytest.fixture
def run_dir(tmp_path) -> Path:
    return make_run(tmp_path / "runs" / "quickstart" / "default")


def make_run(folder: Path, model: Path | None = None, content_hash: str = "abc123" * 10) -> Path:
    """A run's folder at its start, from `model` or from random weights, with the lineage that the recorder writes."""
    folder.mkdir(parents=True)
    random = {"name": "random_init", "sizes": {"hidden_size": 8}, "seed": 1}
    write_lineage(
        folder,
        model={**model_record(str(model)), "name": str(model)} if model else random,
        parent=parent_run(str(model)) if model else None,
        data={"path": str(folder / "secret-path.jsonl"), "content_hash": content_hash, "counts": {"kept": 3}},
        world_size=2,
        argv=["train.py"],
    )
    return folder


def files_of(artifact) -> dict[str, str]:
    """Path → digest in an artifact's manifest."""
    return {entry.path: entry.digest for entry in artifact.manifest.contents}


def test_an_offline_run_holds_everything_and_no_secret(run_dir, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setattr(sys, "argv", ["train.py", f"judge.key={CANARY}"])
    config = {
        "objective": {"name": "cut", "contrast": "fake", "lam": 1.1},
        "judge": {"api_key": "hidden-value"},
        "note": f"key {CANARY}",
    }
    run = start(run_dir, config)
    assert isinstance(run, WandbTracker)
    for step in (1, 2, 1):  # a resumed run goes back; W&B must drop nothing
        run.log({"train/loss": 1.0 / step, "train/nan": float("nan")}, step)
    tokens = [{"id": "x", "position": 0, "token": " a", "inappropriate": True, "p_instruction": 0.5}]
    answers = [{"prompt": "hello", "before": "a", "after": "b"}, {"prompt": "bye", "before": "c"}]
    run.log_table("generations", answers, 2)
    run.log_table("judged_tokens", tokens, 2)
    run.log_table("generations", [], 2)
    run.finish()

    records = finished_records(run_dir)
    [begin] = [record.run for record in records if record.HasField("run")]
    assert (begin.project, begin.run_group, begin.job_type) == ("cut", "g", "train")
    assert list(begin.tags) == ["a", "b", "cut", "contrast-fake", "random_init"]
    assert begin.display_name == "quickstart/default"
    assert begin.run_id == (run_dir / "wandb_id.txt").read_text().strip()
    shown = items(begin.config.update)
    assert shown["objective"] == config["objective"]
    assert shown["judge"] == {"api_key": "***"} and shown["note"] == "key ***"
    assert shown["lineage"]["data"] == {"content_hash": "abc123" * 10, "counts": {"kept": 3}}
    assert shown["lineage"]["world_size"] == 2 and "torch" in shown["lineage"]["packages"]
    history = [items(record.history.item) for record in records if record.HasField("history")]
    steps = [(line["train/global_step"], line.get("train/loss")) for line in history]
    assert steps == [(1, 1.0), (2, 0.5), (1, 1.0), (2, None), (2, None)]
    metrics = [record.metric for record in records if record.HasField("metric")]
    assert any(metric.glob_name == "*" and metric.step_metric == "train/global_step" for metric in metrics)
    contents = [json.loads(path.read_text()) for path in (run_dir / "wandb").rglob("*.table.json")]
    assert {
        "columns": ["step", "prompt", "before", "after"],
        "data": [[2, "hello", "a", "b"], [2, "bye", "c", None]],
    } in contents
    columns = ["step", "id", "position", "token", "inappropriate", "p_instruction"]
    assert {"columns": columns, "data": [[2, "x", 0, " a", True, 0.5]]} in contents
    for path in run_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert CANARY.encode() not in content and b"hidden-value" not in content, path
    assert "wandb sync" in caplog.text and CANARY not in caplog.text


def test_a_second_start_continues_the_same_run(run_dir):
    for step in (1, 2):
        run = start(run_dir)
        run.log({"train/loss": 1.0}, step)
        run.finish()
    folders = sorted((run_dir / "wandb").glob("offline-run-*"))
    names = {path.name for folder in folders for path in folder.glob("run-*.wandb")}
    assert names == {f"run-{(run_dir / 'wandb_id.txt').read_text().strip()}.wandb"}


@pytest.mark.parametrize("status", [0, 1])
def test_how_the_run_ended_is_told(run_dir, status):
    start(run_dir).finish(status)
    [end] = [record.exit for record in finished_records(run_dir) if record.HasField("exit")]
    assert end.exit_code == status


def test_the_jobs_of_a_sweep_are_runs_of_their_own_in_its_group(tmp_path):
    """The group is the experiment unless given, and a sweep's jobs share theirs."""
    seen = []
    for job in ("lam-1.1", "lam-1.2"):
        folder = make_run(tmp_path / "sweeps" / "paper" / job)
        start(folder, group=None).finish()
        seen += [record.run for record in finished_records(folder) if record.HasField("run")]
    assert [(run.run_group, run.display_name) for run in seen] == [
        ("paper", "paper/lam-1.1"),
        ("paper", "paper/lam-1.2"),
    ]
    assert len({run.run_id for run in seen}) == 2


# ---- artifacts


def write_model(folder: Path) -> Path:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    return model


def test_a_rounds_output_is_the_next_rounds_input(tmp_path):
    first = make_run(tmp_path / "runs" / "online_round1" / "default")
    run = start(first)
    model = write_model(first)
    finish_lineage(first)
    run.log_model(model)
    run.finish()
    second = make_run(tmp_path / "runs" / "online_round2" / "default", model, content_hash="def456" * 10)
    start(second).finish()

    name = f"model-{(first / 'wandb_id.txt').read_text().strip()}"
    made, taken = artifacts(finished_records(first)), artifacts(finished_records(second))
    assert set(made) == {"data-abc123abc123", "model-random_init", name}
    assert set(taken) == {"data-def456def456", name}
    [output], [given] = made[name], taken[name]
    assert output.type == "model" and not output.use_after_commit, "made by the first run"
    assert given.use_after_commit, "taken by the second"
    assert given.digest == output.digest, "to W&B it is the same version"
    assert list(files_of(output)) == ["model.json"], "no weights unless asked for"
    facts = json.loads(output.metadata)
    assert facts["run"] == "online_round1/default" and facts["data"] == "abc123" * 10
    assert facts["files"]["model.safetensors"]["bytes"] == len(b"weights")
    [begin] = [record.run for record in finished_records(second) if record.HasField("run")]
    assert "online_round1/default" in begin.tags


def test_data_and_weights_go_along_only_if_asked_for(tmp_path):
    triplets = tmp_path / "mine.jsonl"
    triplets.write_text("{}\n")
    config = {"data": {"path": str(triplets), "heldout_path": "org/on-the-hub"}}
    held = {}
    for asked in (False, True):
        folder = make_run(tmp_path / "runs" / "x" / f"asked-{asked}")
        run = start(folder, config, log_data=asked, log_model=asked)
        run.log_model(write_model(folder))
        run.finish()
        held[asked] = artifacts(finished_records(folder))
    [data] = held[False]["data-abc123abc123"]
    assert (data.type, data.use_after_commit, list(files_of(data))) == ("dataset", True, ["data.json"])
    assert json.loads(data.metadata) == {"content_hash": "abc123" * 10, "counts": {"kept": 3}}
    assert not any(name.startswith("weights-") for name in held[False])
    [data] = held[True]["data-abc123abc123"]
    assert set(files_of(data)) == {"data.json", "path/mine.jsonl"}
    [weights] = [found for name, [found] in held[True].items() if name.startswith("weights-")]
    assert set(files_of(weights)) == {"lineage.json", "config.json", "model.safetensors"}


def test_a_failing_artifact_costs_no_metrics(run_dir, caplog):
    run = start(run_dir)
    run.log_model(run_dir / "no such model")
    run.log({"train/loss": 1.0}, 1)
    run.finish()
    assert "W&B took no artifact" in caplog.text
    assert any(record.HasField("history") for record in finished_records(run_dir))


# ---- which mode


def test_mode_follows_the_key(monkeypatch, tmp_path):
    def mode(asked: str = "auto") -> str:
        return tracker_wandb._wandb_mode(asked)[0]

    assert (mode(), mode("online"), mode("offline")) == ("offline", "online", "offline")
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    assert tracker_wandb._wandb_mode("auto") == ("online", "WANDB_API_KEY is set") and mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mode() == "offline" and mode("online") == "online"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert tracker_wandb._wandb_mode("auto") == ("offline", "WANDB_MODE=dryrun")
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
    run = start(run_dir, mode=mode)
    assert type(run) is Tracker and wandb_init.tried == [] and not (run_dir / "wandb").exists()
    assert "WANDB_MODE=disabled" in caplog.text
    run.finish(1)


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
    run = start(run_dir, mode="auto")
    run.log({"train/loss": 1.0}, 1)
    run.finish()
    assert wandb_init.tried == ["online", "offline"] and offline_file(run_dir).stat().st_size > 0
    assert "could not start online" in caplog.text and "no route to host" in caplog.text
    assert CANARY not in caplog.text


def test_if_wandb_can_not_start_at_all_training_goes_on(run_dir, wandb_init, caplog):
    wandb_init.failing.update(("online", "offline"))
    run = start(run_dir, mode="online")
    assert type(run) is Tracker and "W&B IS OFF" in caplog.text
    run.log({"train/loss": 1.0}, 1)
    run.log_table("generations", [{"a": 1}], 1)
    run.log_model(run_dir)
    run.finish()


def test_if_wandb_is_not_installed_training_goes_on(run_dir, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert type(start(run_dir)) is Tracker
    assert "ModuleNotFoundError" in caplog.text and "W&B IS OFF" in caplog.text


def test_a_failure_in_the_middle_is_said_once(caplog):
    class Broken:
        def log(self, metrics):
            raise BrokenPipeError("the service is gone")

        def finish(self, exit_code):
            raise AssertionError("not asked any more")

    run = WandbTracker(Broken(), TrackerConfig(), TrackedRun(Path("x"), {}, {}))
    for step in range(3):
        run.log({"train/loss": 1.0}, step)
    run.log_table("generations", [{"a": 1}], 3)
    run.finish()
    assert caplog.text.count("the service is gone") == 1
