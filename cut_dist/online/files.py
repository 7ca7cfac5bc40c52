"""Where the files of the rounds lie in the folder of an online run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cut_dist.config import RunConfig

REPORT = "report.html"
ROUNDS = "rounds.json"


@dataclass(frozen=True)
class RoundFiles:
    """<root>/<experiment>/<name>/round_<number>/; round 0 is the evaluation of the first model.

    Attributes:
        online: the folder of the online run.
        number: of the round, from 1.
    """

    online: Path
    number: int

    @property
    def folder(self) -> Path:
        return self.online / f"round_{self.number}"

    @property
    def instructions(self) -> Path:
        return self.folder / "instructions.jsonl"

    @property
    def responses(self) -> Path:
        return self.folder / "responses.jsonl"

    @property
    def judgments(self) -> Path:
        return self.folder / "judgments.jsonl"

    @property
    def triplets(self) -> Path:
        return self.folder / "triplets.jsonl"

    @property
    def training(self) -> Path:
        """The run folder of launch/train.py."""
        return self.folder / "train"

    @property
    def model(self) -> Path:
        return self.training / "model"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"

    @property
    def answers(self) -> Path:
        """The model's answers to `heldout`, where the evaluation looks for them."""
        return self.evaluation / "responses.jsonl"

    @property
    def heldout(self) -> Path:
        """The instructions to evaluate on, the same in all rounds."""
        return self.online / "heldout.jsonl"

    def config(self, stage: str) -> Path:
        """The composed configuration that a stage is started with."""
        return self.folder / "configs" / f"{stage}.yaml"

    def console(self, stage: str) -> Path:
        """What a stage's process printed."""
        return self.folder / "console" / f"{stage}.log"


def budget_owner(run: RunConfig, output: Path) -> Path:
    """What the budget of a stage belongs to: the folder of the run that its output lies in, else the output itself."""
    folder = (Path(run.root) / run.experiment / run.name).resolve()
    return folder if folder in output.resolve().parents else output.resolve()
