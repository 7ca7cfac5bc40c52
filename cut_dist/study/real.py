"""A real model as a laboratory: its answers to made instructions, judged by programs, what trainings make of it.

<root>/real<seed>/round_<n>/    instructions, responses, judgments, triplets, refinements of a round, as online rounds
                                have them, by the same stages
<root>/real<seed>/answers/      each model's greedy answers to the instructions that it is measured on
<root>/real<seed>/<run>/        trainings under way
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cut_dist.config import Config, DataConfig, ModelConfig, ObjectiveConfig, RunConfig, asset_path
from cut_dist.config_check import ConfigError
from cut_dist.data.readers import read_triplets
from cut_dist.data.triplets import BadRowsError
from cut_dist.evaluation import verifiable
from cut_dist.evaluation.answers import INSTRUCTIONS, answer, greedy, read_answers
from cut_dist.evaluation.config import EvaluationConfig
from cut_dist.generators.config import GeneratorConfig
from cut_dist.judges.base import Judged
from cut_dist.judges.config import JudgeConfig
from cut_dist.online.config import InstructionsConfig, OnlineConfig
from cut_dist.online.files import RoundFiles
from cut_dist.online.generating import generate_stage
from cut_dist.online.instructions import HELDOUT, sample_instructions
from cut_dist.online.judging import run_judging
from cut_dist.online.records import Instruction, read_records
from cut_dist.online.refining import RefinedRow, refine_stage
from cut_dist.online.triplets import make_triplets
from cut_dist.study.token_records import token_records
from cut_dist.verifiable import judge

if TYPE_CHECKING:
    from cut_dist.study.config import StudyConfig
    from cut_dist.study.trainer import Trainer

OTHERS = "quickstart/train.jsonl"  # its Align-P responses are right answers to questions that no check is on


class RealLab:
    """The model of `study.real` with the instructions, samples and trainings of one seed.

    Args:
        cfg: the study.
        seed: of instructions, samples and training.
        root: folder of all laboratories; this one's is <root>/real<seed>.
        trainer: runs a training in this process.
    """

    def __init__(self, cfg: StudyConfig, seed: int, root: Path, trainer: Trainer) -> None:
        self.cfg, self.seed, self.folder, self._trainer = cfg, seed, root / f"real{seed}", trainer
        self.base = cfg.study.real.model

    def round(self, number: int) -> RoundFiles:
        return RoundFiles(self.folder, number)

    def refined(self) -> Path:
        """Round 1's triplets with refinements."""
        return self.round(1).folder / "refined.jsonl"

    def sample(self, number: int, model: str | Path) -> dict[str, float]:
        """Answers of `model` to the fresh instructions of a round, judged, as triplets; what is there stays.

        Returns:
            `right`, the share of answers that the judge has no fault to find with, and `triplets`, how many there are.
        """
        cfg, files = self._online(model), self.round(number)
        sample_instructions(cfg, number, files.instructions)
        generate_stage(cfg, files.instructions, files.responses)
        run_judging(cfg, files.responses, files.judgments)
        make_triplets(cfg, number, files.responses, files.judgments, [], files.triplets)
        right = [judged.satisfactory for judged in read_records(files.judgments, Judged)]
        return {"right": float(np.mean(right)), "triplets": len(read_triplets(str(files.triplets))[0])}

    def refine(self) -> dict[str, float]:
        """What the base model makes of its wrong answers of round 1 by their judgments, greedily (ILF).

        Returns:
            `refined`, how many these are, and `refined_right`, the share that the judge has no fault to find with.
        """
        files = self.round(1)
        refine_stage(greedy(self._online(self.base)), files.triplets, self.refined())
        checks = {row.id: row.metadata["checks"] for row in read_records(files.instructions, Instruction)}
        rows = [row for row in read_records(self.refined(), RefinedRow) if row.refinement is not None]
        right = [judge(row.refinement, checks[row.id]).satisfactory for row in rows]
        return {"refined": len(rows)} | ({"refined_right": float(np.mean(right))} if rows else {})

    def train(self, name: str, start: str | Path, triplets: Path, objective: Mapping[str, Any], lr: float) -> Path:
        """Train `start` on a file of triplets, with keys of the group `objective`; where that is done, find it.

        Returns:
            The trained model's folder.

        Raises:
            ConfigError: triplets can't be used, such as those too long for `study.real.max_length`.
            BadRowsError: there are no refinements among them, or none that can be used.
        """
        real = self.cfg.study.real
        train = replace(
            self.cfg.train, lr=lr, max_steps=real.steps, global_batch_size=real.global_batch_size,
            micro_batch_tokens=real.micro_batch_tokens, precision=real.precision,
        )  # fmt: skip
        cfg = replace(
            self.cfg, model=self._model(start), data=self._data(triplets), objective=ObjectiveConfig(**objective),
            train=train, run=RunConfig(str(self.folder.parent), self.folder.name, name), seed=self.seed,
        )  # fmt: skip
        try:
            return self._trainer.run(cfg)
        except BadRowsError as error:
            if triplets == self.refined():  # the model refines nothing: a result
                raise
            remedy = "What is too long needs a larger study.real.max_length, and another study.root."
            raise ConfigError(f"{error} {remedy}") from error

    def measure(self, model: str | Path, name: str, which: int = HELDOUT) -> dict[str, float]:
        """How many instructions the greedy answers follow, and what of the rest is left.

        Args:
            name: of the folder that keeps the answers.
            which: number of the round whose instructions are asked, such as `HELDOUT`.

        Returns:
            What the suite `verifiable` counts over all kinds of checks (`strict`, `loose`, ...), `tokens` of the mean
            answer, `perplexity` of right answers to other questions, by token.
        """
        cfg, folder = self._online(model), self.folder / "answers" / name
        if folder.exists():  # of a start that was interrupted; its model may be gone
            shutil.rmtree(folder)
        asked = folder / INSTRUCTIONS  # a file of its own: other processes measure other models at the same time
        sample_instructions(cfg, which, asked)
        answer(cfg, read_records(asked, Instruction), folder)
        answers = read_answers(folder)
        scores = verifiable.score(answers)
        del scores["by_kind"]  # a handful each
        tokens = float(np.mean([each.response_tokens for each in answers]))
        return {**scores, "tokens": tokens, "perplexity": self._perplexity(model)}

    def _perplexity(self, model: str | Path) -> float:
        triplets, _ = read_triplets(asset_path(OTHERS))
        rows = [
            {"id": each.id, "instruction": each.instruction, "response": each.response, "judgment": None}
            for each in triplets
            if not each.is_negative
        ]
        records = token_records(self.cfg, self.folder, model, rows)
        return math.exp(-float(np.concatenate([record.logp for record in records]).mean()))

    def _model(self, model: str | Path) -> ModelConfig:
        return ModelConfig(name_or_path=str(model), checkpointing=self.cfg.study.real.checkpointing)

    def _data(self, triplets: Path) -> DataConfig:
        longest = self.cfg.study.real.max_length
        return DataConfig(
            path=str(triplets), template="chat", max_length=longest, max_judgment_tokens=longest // 2,
            on_bad_row="skip" if triplets == self.refined() else "error",  # no refinement: ILF leaves the row out
            cache_dir=str(self.folder / "cache"),
        )  # fmt: skip

    def _online(self, model: str | Path) -> OnlineConfig:
        """What the stages of an online round read."""
        real = self.cfg.study.real
        shared = {each.name: getattr(self.cfg, each.name) for each in dataclasses.fields(Config)}
        shared |= {"model": self._model(model), "data": self._data(self.round(1).triplets), "seed": self.seed}
        shared["train"] = replace(self.cfg.train, precision=real.precision)
        return OnlineConfig(
            **shared,
            instructions=InstructionsConfig(
                per_round=real.instructions, heldout=real.heldout, max_checks=real.max_checks
            ),
            generator=GeneratorConfig(
                temperature=real.temperature, max_new_tokens=real.max_new_tokens, batch_size=real.sample_batch
            ),
            judge=JudgeConfig(name="verifiable"),
            evaluation=EvaluationConfig(max_new_tokens=real.max_new_tokens),
        )
