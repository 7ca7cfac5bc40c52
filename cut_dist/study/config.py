"""What launch/study.py reads beside a training configuration."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

from cut_dist.config import Config, ModelConfig
from cut_dist.config_check import NAME_RULE, ConfigError, is_name, ranged, require

_SIZES = {
    "400k": {"num_hidden_layers": 2},
    "2900k": {"num_hidden_layers": 6, "hidden_size": 192, "intermediate_size": 576},
}


@dataclass
class RealKeys:
    """The part with a real model; how it samples and trains."""

    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    instructions: int = ranged(128, at_least=2)
    heldout: int = ranged(160, at_least=2)
    max_checks: int = ranged(1, at_least=1)
    rounds: int = ranged(2, at_least=1)
    temperature: float = ranged(0.7, above=0)
    max_new_tokens: int = ranged(96, at_least=1)
    sample_batch: int = ranged(64, at_least=1)
    max_length: int = ranged(512, at_least=32)
    lrs: list[float] = field(default_factory=lambda: [2e-5, 5e-5])
    steps: int = ranged(28, at_least=1)
    global_batch_size: int = ranged(8, at_least=1)
    micro_batch_tokens: int = ranged(2048, at_least=1)
    checkpointing: Literal["none", "selective", "full"] = "none"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    lam: float = ranged(2.0, above=0)
    gamma: float = ranged(0.5, at_least=0)

    def __post_init__(self) -> None:
        _check_grid("study.real.lrs", self.lrs)
        room = f"must be less than study.real.max_length={self.max_length}, the room of prompt and answer"
        require(self.max_new_tokens < self.max_length, "study.real.max_new_tokens", self.max_new_tokens, room)


@dataclass
class StudyKeys:
    """How large the study is; conf/study.yaml has a sentence for each key."""

    root: str = "study"
    results: str = "docs/results/study"
    workers: int = ranged(2, at_least=1)
    parts: list[str] = field(default_factory=list)
    seeds: int = ranged(5, at_least=2, why="an interval needs at least two")
    pretrain_steps: int = ranged(2000, at_least=1)
    pretrain_batch: int = ranged(64, at_least=1)
    pretrain_lr: float = ranged(2e-3, above=0)
    samples: int = ranged(600, at_least=10)
    round_samples: int = ranged(150, at_least=10)
    rounds: int = ranged(5, at_least=1)
    heldout: int = ranged(600, at_least=6)
    sizes: dict[str, dict[str, int]] = field(default_factory=lambda: deepcopy(_SIZES))
    lrs: list[float] = field(default_factory=lambda: [1e-5, 3e-5, 1e-4, 3e-4, 1e-3])
    epochs: list[float] = field(default_factory=lambda: [1.0, 4.0, 16.0])
    real: RealKeys = field(default_factory=RealKeys)

    def __post_init__(self) -> None:
        require(bool(self.root), "study.root", self.root, "must name a folder")
        require(bool(self.results), "study.results", self.results, "must name a folder")
        _check_grid("study.lrs", self.lrs)
        _check_grid("study.epochs", self.epochs)
        for size, keys in self.sizes.items():
            require(is_name(size) and "." not in size, "study.sizes", size, f"must be {NAME_RULE}, without dots")
            try:
                ModelConfig(tokenizer="lab", random_init=keys)
            except ConfigError as error:
                raise ConfigError(f"study.sizes.{size}: {error}") from error


def _check_grid(key: str, values: list[float]) -> None:
    require(bool(values) and all(value > 0 for value in values), key, values, "must list numbers above 0")


@dataclass
class StudyConfig(Config):
    """A training configuration, which all trainings of the study share as far as they do not differ by purpose."""

    study: StudyKeys = field(default_factory=StudyKeys)
