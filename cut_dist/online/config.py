"""What launch/online.py, generate.py, judge.py and evaluate.py read beside a training configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cut_dist.config import Config
from cut_dist.config_check import ranged, require
from cut_dist.evaluation.config import EvaluationConfig
from cut_dist.generators.config import GeneratorConfig
from cut_dist.judges.config import JudgeConfig


@dataclass
class InstructionsConfig:
    """Which instructions the rounds draw from, and which are kept to evaluate on."""

    source: Literal["verifiable", "file"] = "verifiable"
    path: str | None = None  # source=file: {"id", "instruction", "metadata"} a line
    heldout_path: str | None = None  # source=file: the instructions to evaluate on
    per_round: int = ranged(1000, at_least=1)  # the paper's number
    heldout: int = ranged(200, at_least=0)  # instructions to evaluate on; 0 with source=file: all of heldout_path
    max_checks: int = ranged(2, at_least=1)  # source=verifiable: checks of one instruction

    def __post_init__(self) -> None:
        given = (self.source == "file") == (self.path is not None)
        require(given, "instructions.path", self.path, "source=file reads it, source=verifiable has none")


@dataclass
class RoundsConfig:
    """How many rounds, from what, on what."""

    rounds: int = ranged(5, at_least=1)
    mix_earlier: float = ranged(0.0, at_least=0, at_most=1)  # share of earlier rounds' triplets trained on again
    start_from: Literal["previous", "first"] = "previous"  # the model that a round trains
    launcher: list[str] = field(default_factory=lambda: ["deepspeed"])  # what starts launch/train.py and generate.py
    evaluate_first: bool = True  # evaluate the model before round 1 as well

    def __post_init__(self) -> None:
        remedy = "must name a launcher, such as [deepspeed, --num_gpus, '4'], or [python] for one process"
        require(bool(self.launcher) and all(self.launcher), "online.launcher", self.launcher, remedy)


@dataclass
class StageConfig:
    """Files of a stage that is run by itself."""

    input: str | None = None
    output: str | None = None

    def files(self) -> tuple[Path, Path]:
        """Input and output; refused unless both are given."""
        for key in ("input", "output"):
            require(bool(getattr(self, key)), f"stage.{key}", getattr(self, key), "name the file")
        return Path(self.input), Path(self.output)


@dataclass
class OnlineConfig(Config):
    """A training configuration and what is around it in a round: `+experiment=...` means the same in both."""

    instructions: InstructionsConfig = field(default_factory=InstructionsConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    online: RoundsConfig = field(default_factory=RoundsConfig)
    stage: StageConfig = field(default_factory=StageConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        named = not self.generator.serve or self.model.name_or_path is not None
        remedy = "a server needs a model with a folder or a name, not random weights: set model.name_or_path"
        require(named, "generator.serve", self.generator.serve, remedy)
