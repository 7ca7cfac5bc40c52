"""What the files of an online run say: the numbers of each round, for the live view, the report and rounds.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cut_dist.metrics import read_metrics
from cut_dist.online.files import RoundFiles
from cut_dist.online.stage import partial_paths, read_manifest
from cut_dist.run_folder import read_finished


@dataclass(frozen=True)
class RoundSummary:
    """The numbers of one round, as far as it has come; round 0 has an evaluation only.

    Attributes:
        instructions: how many the round draws.
        responses: how many are there, of an unfinished stage too; likewise `judged`.
        counts: of the finished stages: satisfactory, unsatisfactory, set_aside, align_n, align_p, ...
        cost: US dollars of generating, judging and evaluating.
        seconds: of the finished stages but training.
        steps: optimizer steps done.
        trained: whether training is at its end.
        before: held-out (or else training sample's) metrics at the start of training, `after` at its end.
        train: the last training record.
        answers: answers to the held-out instructions that are there.
        evaluation: suite → its numbers.
    """

    number: int
    instructions: int = 0
    responses: int = 0
    judged: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    cost: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    trained: bool = False
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    answers: int = 0
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def share_perfect(self) -> float | None:
        """Satisfactory responses among those with a verdict."""
        judged = self.counts.get("satisfactory", 0) + self.counts.get("unsatisfactory", 0)
        return self.counts.get("satisfactory", 0) / judged if judged else None


def read_rounds(online: Path) -> list[RoundSummary]:
    """The rounds that have begun, round 0 first if the first model was evaluated."""
    numbers = sorted(int(path.name.removeprefix("round_")) for path in online.glob("round_*") if path.is_dir())
    return [read_round(RoundFiles(online, number)) for number in numbers]


def read_round(files: RoundFiles) -> RoundSummary:
    """What there is of one round."""
    outputs = (files.instructions, files.responses, files.judgments, files.triplets)
    manifests = [read_manifest(path) or {} for path in outputs]
    counts = {name: count for manifest in manifests[1:] for name, count in manifest.get("counts", {}).items()}
    cost = sum(manifest.get("cost", 0.0) for manifest in manifests) + _evaluation_cost(files)
    cost += _partial_cost(files.responses, "sampling") + _partial_cost(files.judgments, "detail")
    rows = read_metrics(files.training / "metrics.jsonl") if (files.training / "metrics.jsonl").exists() else []
    train = [row for row in rows if row["kind"] == "train"]
    evaluations = [_split(row) for row in rows if row["kind"] == "eval"]
    return RoundSummary(
        number=files.number,
        instructions=manifests[0].get("counts", {}).get("instructions", 0),
        responses=_count(files.responses),
        judged=_count(files.judgments),
        counts=counts,
        cost=cost,
        seconds=sum(manifest.get("seconds", 0.0) for manifest in manifests),
        steps=train[-1]["step"] if train else 0,
        trained=read_finished(files.training) is not None,
        before=evaluations[0] if evaluations else {},
        after=evaluations[-1] if len(evaluations) > 1 else {},
        train=train[-1] if train else {},
        answers=_count(files.answers),
        evaluation=read_evaluation(files)["suites"],
    )


def read_evaluation(files: RoundFiles) -> dict[str, Any]:
    """`suites`, `settings`: suite → its numbers, and what they depend on; of the suites that are done."""
    path = files.evaluation / "evaluation.json"
    found = json.loads(path.read_bytes()) if path.exists() else {}
    return {"suites": {}, "settings": {}, **found}


def _count(output: Path) -> int:
    """Rows of a stage, finished or not."""
    return sum(content.count(b"\n") for content in _contents(output))


def _partial_cost(output: Path, field_name: str) -> float:
    """What the rows of an unfinished stage have cost; a manifest says it of a finished one."""
    if output.exists():
        return 0.0
    lines = [line for content in _contents(output) for line in content.split(b"\n")[:-1]]
    return sum(json.loads(line)[field_name].get("cost", 0.0) for line in lines if b'"cost"' in line)


def _evaluation_cost(files: RoundFiles) -> float:
    """What answers and comparisons of the evaluation have cost."""
    manifests = sorted(files.evaluation.rglob("*.manifest.json"))
    return sum(json.loads(path.read_bytes()).get("cost", 0.0) for path in manifests)


def _contents(output: Path) -> list[bytes]:
    """The files of a stage; its process may be putting the output in place of the partial files right now."""
    try:
        return [path.read_bytes() for path in ([output] if output.exists() else partial_paths(output))]
    except FileNotFoundError:
        return [output.read_bytes()] if output.exists() else []


def _split(row: Mapping[str, Any]) -> dict[str, float]:
    """An evaluation's held-out numbers or, where nothing is held out, those of the training sample."""
    for split in ("heldout", "train"):
        found = {key.removeprefix(f"{split}/"): value for key, value in row.items() if key.startswith(f"{split}/")}
        if found:
            return found
    return {}
