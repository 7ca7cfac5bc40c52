"""Answers of each round's model to the same held-out instructions, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cut_dist.online.files import RoundFiles
from cut_dist.online.records import Response, read_records
from cut_dist.verifiable import judge


@dataclass(frozen=True)
class Answer:
    """One answer; verdict and judgment where the instruction has checks, else None."""

    text: str
    satisfactory: bool | None
    judgment: str | None


@dataclass(frozen=True)
class Sample:
    """An instruction and each round's answer to it, round number → answer, 0 before training."""

    instruction: str
    answers: dict[int, Answer]


def changed_samples(online: Path, rounds: Sequence[int], most: int) -> list[Sample]:
    """At most `most` instructions: those whose verdict changed between first and last first, then changed words.

    Args:
        online: folder of the online run.
        rounds: numbers of the rounds to look at; those without answers are left out.
        most: how many.
    """
    answers = {number: found for number in rounds if (found := _answers(RoundFiles(online, number)))}
    if len(answers) < 2:
        return []
    first, last = answers[min(answers)], answers[max(answers)]
    common = [id for id in first if all(id in found for found in answers.values())]
    samples = [
        Sample(first[id].instruction, {number: _answer(found[id]) for number, found in answers.items()})
        for id in sorted(common, key=lambda id: first[id].response == last[id].response)
    ]
    return sorted(samples, key=_steady)[:most]


def _answers(files: RoundFiles) -> dict[str, Response]:
    """Id → answer to the held-out instructions, else those of the first suite that asks its own."""
    paths = [*files.evaluation.glob("responses.jsonl"), *sorted(files.evaluation.glob("*/responses.jsonl"))]
    return {row.id: row for row in read_records(paths[0], Response)} if paths else {}


def _answer(response: Response) -> Answer:
    checks = response.metadata.get("checks")
    if not checks:
        return Answer(response.response, None, None)
    verdict = judge(response.response, checks)
    return Answer(response.response, verdict.satisfactory, verdict.judgment)


def _steady(sample: Sample) -> bool:
    """Whether first and last verdict are the same."""
    verdicts = [answer.satisfactory for answer in sample.answers.values()]
    return verdicts[0] == verdicts[-1]
