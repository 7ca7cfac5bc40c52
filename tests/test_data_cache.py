"""The cache of prepared data: found by content, checked by hash, made once however many ask."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cut_dist.cache import cache_root
from cut_dist.config import DataConfig
from cut_dist.data import prepare as prepare_module
from cut_dist.data.cache import load_prepared, prepared_root
from cut_dist.data.examples import Prepared
from cut_dist.data.prepare import prepare
from cut_dist.model.resolve import converted_folder
from cut_dist.model.tiny import byte_tokenizer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def cfg(tmp_path) -> DataConfig:
    rows = [
        {"instruction": f"Task {n}", "response": f"Answer {n}", "judgment": None if n % 3 else "Wrong."}
        for n in range(30)
    ]
    rows[4]["response"] = ""
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(
        path=str(tmp_path / "d.jsonl"), cache_dir=str(tmp_path / "cache"), on_bad_row="skip", heldout_size=5
    )


@pytest.fixture
def builds(monkeypatch) -> list:
    """One entry for each time that a data set is really made."""
    made = []
    build = prepare_module._build
    monkeypatch.setattr(prepare_module, "_build", lambda *args: made.append(args) or build(*args))
    return made


def run(cfg: DataConfig, tokenizer=None, seed: int = 0, fake_judgment: str = "Perfect.") -> Prepared:
    return prepare(cfg, tokenizer or byte_tokenizer(), seed=seed, fake_judgment=fake_judgment)


def as_plain(prepared: Prepared) -> dict:
    def plain(example):
        prompts = {name: ids.tolist() for name, ids in example.prompt_ids.items()}
        return [example.id, example.is_negative, prompts, example.response_ids.tolist()]

    parts = {name: [plain(e) for e in getattr(prepared, name)] for name in ("train", "heldout")}
    return parts | {n: getattr(prepared, n) for n in ("rejects", "counts", "content_hash")}


def folders(cfg: DataConfig) -> list[Path]:
    return [path for path in (Path(cfg.cache_dir) / "prepared").iterdir() if path.is_dir()]


def test_a_second_call_reads_the_same_data_set_without_tokenising(cfg, builds, monkeypatch):
    first = run(cfg)
    tokenizer = byte_tokenizer()
    prompts = []
    original = type(tokenizer).__call__
    monkeypatch.setattr(
        type(tokenizer),
        "__call__",
        lambda self, text, *a, **k: prompts.append(text) or original(self, text, *a, **k),
    )
    second = run(cfg, tokenizer)
    assert as_plain(first) == as_plain(second)
    assert len(builds) == 1
    assert all("Task" not in str(text) and "Answer" not in str(text) for text in prompts)


def test_every_input_that_matters_makes_another_data_set(cfg, builds):
    run(cfg)
    changes = {
        "template": "chat",
        "heldout_size": 4,
        "max_length": 1500,
        "max_judgment_tokens": 900,
        "align_p_ratio": 0.5,
        "on_overlong": "drop",
        "limit": 20,
        "format": "cut_dist",
        "heldout_path": cfg.path,
    }
    for name, value in changes.items():
        if name == "heldout_path":
            Path(cfg.path + "2").write_text('{"instruction": "i", "response": "r", "judgment": null}\n')
            value = cfg.path + "2"
        run(dataclasses.replace(cfg, **{name: value}))
    run(cfg, seed=1)
    run(cfg, fake_judgment="Good.")
    assert len(builds) == len(folders(cfg)) == 1 + len(changes) + 2
    run(cfg)
    assert len(builds) == 1 + len(changes) + 2


def test_a_changed_file_is_prepared_anew_and_a_touched_one_is_not(cfg, builds):
    run(cfg)
    Path(cfg.path).touch()
    run(cfg)
    assert len(builds) == 1
    Path(cfg.path).write_text(Path(cfg.path).read_text().replace("Answer 7", "Answer x"))
    assert len(run(cfg).train) == 24
    assert len(builds) == 2


def test_another_tokenizer_is_another_data_set(cfg, builds):
    with_template = byte_tokenizer()
    with_template.chat_template += " "
    with_token = byte_tokenizer()
    with_token.add_tokens(["Answer"])
    with_eos = byte_tokenizer()
    with_eos.eos_token = "<pad>"
    for tokenizer in (byte_tokenizer(), with_template, with_token, with_eos):
        run(cfg, tokenizer)
    assert len(builds) == 4


def test_a_tokenizer_that_was_used_for_padding_is_still_the_same(cfg, builds):
    run(cfg)
    tokenizer = byte_tokenizer()
    tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    run(cfg, tokenizer)
    assert len(builds) == 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


CORRUPTIONS = {
    "a flipped bit": flip,
    "half of it gone": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["tokens.safetensors", "index.json"])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corrupt_data_set_is_made_anew_and_that_is_said(cfg, builds, caplog, name, corruption):
    first = run(cfg)
    CORRUPTIONS[corruption](folders(cfg)[0] / name)
    second = run(cfg)
    assert as_plain(first) == as_plain(second)
    assert len(builds) == 2
    assert "it is made anew" in caplog.text
    run(cfg)
    assert len(builds) == 2


def test_an_index_that_says_something_else_is_not_believed(cfg, builds):
    first = run(cfg)
    index = folders(cfg)[0] / "index.json"
    text = index.read_text()
    assert text.count('"kept": 29') == 1
    index.write_text(text.replace('"kept": 29', '"kept": 28'))
    assert run(cfg).counts == first.counts
    assert len(builds) == 2


def test_what_a_killed_process_left_is_swept_away(cfg, builds):
    run(cfg)
    folder = folders(cfg)[0]
    for name in ("12345", "corrupt"):
        leftover = folder.with_name(f".{folder.name}.{name}")
        leftover.mkdir()
        (leftover / "tokens.safetensors").write_bytes(b"half")
    (folder / "index.json").unlink()
    run(cfg)
    assert folders(cfg) == [folder]
    assert load_prepared(folder) is not None


def test_a_data_set_in_the_cache_needs_no_right_to_write(cfg, builds):
    run(cfg)
    folder = folders(cfg)[0]
    before = sorted(folder.parent.iterdir())
    run(cfg)
    assert sorted(folder.parent.iterdir()) == before
    (folder.parent / f"{folder.name}.lock").unlink()
    run(cfg)
    assert not (folder.parent / f"{folder.name}.lock").exists()


def test_a_failed_preparation_leaves_nothing_in_the_cache(cfg):
    with pytest.raises(ValueError, match="rows cannot be used"):
        run(dataclasses.replace(cfg, on_bad_row="error"))
    assert folders(cfg) == []


def test_one_folder_for_all_that_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CUT_DIST_CACHE", raising=False)
    assert cache_root() == tmp_path / ".cache" / "cut_dist"
    monkeypatch.setenv("CUT_DIST_CACHE", "~/kept")
    assert cache_root() == tmp_path / "kept" and prepared_root(None) == tmp_path / "kept" / "prepared"
    assert converted_folder("HuggingFaceTB/SmolLM2-135M-Instruct").parent == tmp_path / "kept" / "models"
    assert prepared_root("~/mine") == tmp_path / "mine" / "prepared"


def test_files_and_names_are_durable_before_and_after_the_rename(cfg, monkeypatch):
    synced = []
    fsync = os.fsync

    def recording(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    run(cfg)
    (folder,) = folders(cfg)
    assert {path.stat().st_ino for path in folder.iterdir()} <= set(synced[:-2])
    assert synced[-2:] == [folder.stat().st_ino, folder.parent.stat().st_ino]


PROCESS = """
import logging, sys, time
from cut_dist.config import DataConfig
from cut_dist.data import prepare as module
from cut_dist.model.tiny import byte_tokenizer

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
build = module._build

def slow_build(*args):
    print("BUILDING", flush=True)
    time.sleep(2)
    return build(*args)

module._build = slow_build
path, cache, go = sys.argv[1:]
cfg = DataConfig(path=path, cache_dir=cache, on_bad_row="skip", heldout_size=5)
tokenizer = byte_tokenizer()
print("READY", flush=True)
sys.stdin.readline()
print("HASH", module.prepare(cfg, tokenizer, seed=0, fake_judgment="Perfect.").content_hash)
"""


def test_of_several_processes_one_prepares_and_the_others_wait_and_read(cfg):
    command = [sys.executable, "-c", PROCESS, cfg.path, cfg.cache_dir, "go"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout.readline() == "READY\n"
        start = time.monotonic()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        assert time.monotonic() - start > 2
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sum(output.count("BUILDING") for output in outputs) == 1
    assert sorted(output.count("another process prepares") for output in outputs) == [0, 1, 1]
    hashes = {line for output in outputs for line in output.splitlines() if line.startswith("HASH")}
    assert hashes == {f"HASH {run(cfg).content_hash}"}
