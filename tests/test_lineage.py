"""lineage.json: what it says about model, data and code, how it grows, and that no secret gets into it."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess

import pytest

from cut_dist import lineage
from cut_dist.lineage import finish_lineage, model_record, parent_run, read_lineage, redact, write_lineage

CANARY = "canary-1234567890abcdef"


def write(folder, **changes):
    facts = {
        "model": {"name": "m"},
        "data": {"content_hash": "h"},
        "world_size": 2,
        "argv": ["launch/train.py"],
    }
    write_lineage(folder, **facts | changes)


def test_every_start_is_kept(tmp_path):
    assert read_lineage(tmp_path) is None
    write(tmp_path)
    write(tmp_path, resumed_from="step_00000020", world_size=1)
    finish_lineage(tmp_path)
    first, second = read_lineage(tmp_path)["starts"]
    assert (first["finished"], first["resumed_from"], first["world_size"]) == (None, None, 2)
    assert (second["resumed_from"], second["world_size"]) == ("step_00000020", 1)
    write(tmp_path, resumed_from=str(tmp_path / "checkpoints" / "step_00000030"))
    assert read_lineage(tmp_path)["starts"][2]["resumed_from"] == "step_00000030"
    assert second["finished"] >= second["started"]
    assert second["packages"]["torch"] and second["code"]["version"]


def test_the_end_of_what_never_started(tmp_path):
    with pytest.raises(FileNotFoundError, match="write_lineage comes first"):
        finish_lineage(tmp_path)


def safetensors(path, payload: bytes) -> bytes:
    header = json.dumps(
        {"w": {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + payload)
    return struct.pack("<Q", len(header)) + header


def test_a_local_model_is_named_by_content(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    safetensors(model / "model.safetensors", b"weights 1")
    one = model_record(str(model))
    assert set(one["files"]) == {"config.json", "model.safetensors"} and one["local"]
    assert one["files"]["config.json"] == {"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    safetensors(model / "model.safetensors", b"weights 2")
    two = model_record(str(model))
    assert one["files"]["model.safetensors"]["sha256"] != two["files"]["model.safetensors"]["sha256"]


def test_large_weights_are_told_by_their_headers(tmp_path, monkeypatch):
    header = safetensors(tmp_path / "model-00001-of-00001.safetensors", b"weights")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    monkeypatch.setattr(lineage, "HASH_LIMIT_BYTES", 3)
    files = model_record(str(tmp_path))["files"]
    entry = files["model-00001-of-00001.safetensors"]
    assert entry == {"bytes": len(header) + 7, "header_sha256": hashlib.sha256(header).hexdigest()}
    assert "sha256" in files["model.safetensors.index.json"]


def test_a_model_by_name_only(tmp_path):
    record = model_record("HuggingFaceTB/SmolLM2-135M-Instruct", "main")
    assert record == {"name": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "main", "local": False}


def test_the_parent_is_the_run_that_made_the_model(tmp_path):
    run = tmp_path / "runs" / "online_round1" / "default"
    (run / "model").mkdir(parents=True)
    assert parent_run(str(run / "model")) is None
    write(run)
    parent = parent_run(str(run / "model"))
    assert (
        parent["run"] == "online_round1/default"
        and parent["model"] == "m"
        and len(parent["lineage_sha256"]) == 64
    )
    assert parent_run("some/hub-name") is None
    (run / "lineage.json").write_text("{")
    assert parent_run(str(run / "model")) is None


def test_the_commit_of_a_checkout_and_of_no_other_repository(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    package = tmp_path / "cut_dist"
    package.mkdir()
    (package / "lineage.py").write_text("")
    monkeypatch.setattr(lineage, "__file__", str(package / "lineage.py"))
    assert lineage.code_record()["git_commit"] is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    record = lineage.code_record()
    assert len(record["git_commit"]) == 40 and record["git_dirty"] is False
    (package / "lineage.py").write_text("changed")
    assert lineage.code_record()["git_dirty"] is True
    nested = tmp_path / "venv" / "site-packages" / "cut_dist"
    nested.mkdir(parents=True)
    monkeypatch.setattr(lineage, "__file__", str(nested / "lineage.py"))
    assert lineage.code_record()["git_commit"] is None


def test_no_secret_reaches_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    write(
        tmp_path,
        argv=[
            "train.py",
            f"tracker.api_key={CANARY}",
            f"judge.url=https://u:{CANARY}@host/",
            "train.lr=1e-5",
        ],
        model={"name": "m", "hf_token": "hidden", "auth": {"password": "hidden"}},
    )
    text = (tmp_path / "lineage.json").read_text()
    assert CANARY not in text and "hidden" not in text and "train.lr=1e-5" in text


def test_redact_leaves_ordinary_keys_alone():
    config = {"max_judgment_tokens": 512, "tokenizer": "bytes", "keep": [1, ("a", None)], "eos_token": "</s>"}
    assert redact(config) == {
        "max_judgment_tokens": 512,
        "tokenizer": "bytes",
        "keep": [1, ["a", None]],
        "eos_token": "</s>",
    }
    assert redact({"api_key": None, "API_KEY": "x", "x": ["hf_token=abc"]}) == {
        "api_key": None,
        "API_KEY": "***",
        "x": ["hf_token=***"],
    }
