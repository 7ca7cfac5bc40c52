"""What is missing is said before anything slow: data files, the model of an earlier run, a free port."""

from __future__ import annotations

import socket

import pytest

from cut_dist.config import ConfigError
from cut_dist.config_compose import compose_config
from cut_dist.data.triplets import DataError
from cut_dist.preflight import require_inputs, require_port

COLUMNS = ("data.format=columns", "data.columns={instruction: a, response: b, judgment: c}", "data.heldout_path=null")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)


def check(*overrides: str) -> None:
    require_inputs(compose_config("train", ["+experiment=smoke", *overrides]))


@pytest.mark.parametrize("key", ["path", "heldout_path"])
def test_a_missing_file_is_named_with_the_likest_one(key, tmp_path):
    (tmp_path / "triplets.jsonl").write_text("{}")
    check(f"data.{key}=triplets.jsonl")
    with pytest.raises(DataError, match=r"^triplet.jsonl: no such file .*; did you mean triplets.jsonl\?$"):
        check(f"data.{key}=triplet.jsonl")
    with pytest.raises(DataError, match=r"^nowhere/t.csv: no such file [^?]*$"):
        check(f"data.{key}=nowhere/t.csv")
    with pytest.raises(DataError, match="is a folder"):
        check(f"data.{key}={tmp_path}")


def test_a_name_of_the_hub_passes_where_columns_allow_one():
    check(*COLUMNS, "data.path=org/name:main")
    for path in ("org/name.parquet", "org/name.jsonl", "org/name.csv"):
        with pytest.raises(DataError, match="no such file"):
            check(*COLUMNS, f"data.path={path}")
    with pytest.raises(DataError, match="no such file"):
        check("data.path=org/name")


def test_a_missing_model_of_a_run_names_the_finished_runs_that_have_one(tmp_path):
    wanted = ["model=smollm2_135m", "model.name_or_path=runs/online_round1/default/model"]
    check(*wanted)  # without any, resolve_model says which command makes it
    for run in ("done", "unfinished", "not_exported"):
        folder = tmp_path / "runs/online_round1" / run
        (folder / "model" if run != "not_exported" else folder).mkdir(parents=True)
        if run != "unfinished":
            (folder / "finished.json").write_text("{}")
    with pytest.raises(ConfigError) as error:
        check(*wanted)
    assert str(error.value).splitlines() == [
        "There is no model runs/online_round1/default/model. Finished runs of online_round1 give:",
        "  model.name_or_path=runs/online_round1/done/model",
    ]
    check(wanted[0], "model.name_or_path=runs/online_round1/done/model")


def test_only_rank_0_looks(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    check("data.path=missing.jsonl")


def test_a_port_in_use_is_named_with_the_remedy(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        require_port()  # no launcher, so no port to meet at
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(ConfigError, match=f"Port {port} .* is taken.*deepspeed --master_port {port + 1} launch"):
            require_port()
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
        require_port()
        monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
        monkeypatch.setenv("RANK", "1")
        require_port()
    monkeypatch.setenv("RANK", "0")
    require_port()


def test_a_tracker_that_is_not_installed_is_said_at_the_start(monkeypatch):
    check("tracker=tensorboard")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        check("tracker=tensorboard")
