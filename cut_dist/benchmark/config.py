"""What launch/benchmark.py reads beside a training configuration; conf/benchmark.yaml has a sentence for each key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cut_dist.config import RANDOM_INIT_KEYS, Config
from cut_dist.config_check import ranged, require, unknown_key


@dataclass
class KernelSuiteConfig:
    """The loss from logits: R rows of V tokens."""

    rows: int | None = ranged(None, at_least=2)
    vocab: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_sizes("kernel.vocab", self.vocab)


@dataclass
class HeadSuiteConfig:
    """The loss from hidden states: R rows of D numbers, V tokens."""

    rows: int | None = ranged(None, at_least=2)
    vocab: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_sizes("head.vocab", self.vocab)
        _check_sizes("head.hidden", self.hidden)


@dataclass
class StepSuiteConfig:
    """Forward and backward of a model over micro-batches of triplets."""

    examples: int = ranged(8, at_least=2)
    triplets: str | None = "../shared/data/cut_online/iter1.json"
    max_length: int | None = ranged(None, at_least=16)
    cuda_model: dict[str, int | bool] | None = None

    def __post_init__(self) -> None:
        for key in self.cuda_model or {}:
            if key not in RANDOM_INIT_KEYS:
                raise unknown_key("step.cuda_model", key, RANDOM_INIT_KEYS)


@dataclass
class BenchmarkJobConfig(Config):
    """A training configuration, for its model, data and objective, and what to measure."""

    suite: Literal["kernel", "head", "step", "all"] = "all"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    budget_minutes: float = ranged(9.0, above=0)
    repetitions: int = ranged(20, at_least=1)
    output: str | None = "auto"
    kernel: KernelSuiteConfig = field(default_factory=KernelSuiteConfig)
    head: HeadSuiteConfig = field(default_factory=HeadSuiteConfig)
    step: StepSuiteConfig = field(default_factory=StepSuiteConfig)


def _check_sizes(key: str, sizes: list[int]) -> None:
    for size in sizes:
        require(size > 1, key, size, "must be at least 2")
