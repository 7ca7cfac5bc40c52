"""The stage triplets → triplets with refinements: ŷ = LLM(x, y, j) for every Align-N row (paper, section 3.2, ILF).

<output>.requests.jsonl    what the generator is asked, one `Instruction` for each Align-N row
<output>.responses.jsonl   what it answers, written down as it comes, by the stage that launch/generate.py runs
<output>                   all rows, in the order of the input
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cut_dist.config_check import require
from cut_dist.data.formats import FORMATS
from cut_dist.data.objectives import NO_REFINEMENT
from cut_dist.data.readers import read_triplets
from cut_dist.data.templates import REFINE_TASK
from cut_dist.data.triplets import BadRowsError, NoRowsLeft, RowError, Triplet, make_triplet
from cut_dist.online.config import OnlineConfig
from cut_dist.online.generating import generate_stage
from cut_dist.online.ranks import LauncherRanks
from cut_dist.online.records import Instruction, Response, read_records
from cut_dist.online.stage import open_stage
from cut_dist.wording import counted

log = logging.getLogger(__name__)

COLUMNS = FORMATS["cut_dist"].columns


@dataclass(frozen=True)
class RefinedRow:
    """A line of the output. `judgment` is None for Align-P, which has no refinement and passes through."""

    id: str
    instruction: str
    response: str
    judgment: str | None
    refinement: str | None


def refine_stage(cfg: OnlineConfig, source: Path, output: Path) -> int:
    """Have the Align-N responses of `source` refined into `output`, or go on with it; on every rank.

    Args:
        cfg: what `generate_stage` reads; `generator.samples` must be 1.
        source: triplets in any known format. What a row holds beside the fields of `RefinedRow` is not copied.
        output: rows of `RefinedRow`. A row whose refinement training would refuse (empty, a NUL byte) is left out and
            counted by reason in the manifest.

    Returns:
        The exit status of this rank.

    Raises:
        BadRowsError, NoRowsLeft: `source` holds no triplets, or none of Align-N.
        StageError, RecordError: the stage can't be continued; see `generate_stage` for what else.
    """
    samples = cfg.generator.samples
    require(samples == 1, "generator.samples", samples, "must be 1: a row has one refinement")
    requests, answers = (output.with_name(f"{output.name}.{what}.jsonl") for what in ("requests", "responses"))
    is_main = LauncherRanks.of_environment().is_main
    triplets = _read(source) if is_main else []
    if is_main:
        _write_requests(triplets, source, requests)
    status = generate_stage(cfg, requests, answers)
    if is_main and status == 0:
        _join(triplets, source, answers, output)
    return status


def refine_request(triplet: Triplet) -> Instruction:
    """What a model is asked about an Align-N row."""
    words = {"instruction": triplet.instruction, "response": triplet.response, "judgment": triplet.judgment}
    return Instruction(triplet.id, REFINE_TASK.format(**words))


def _read(source: Path) -> list[Triplet]:
    triplets, rejects = read_triplets(str(source))
    if rejects:
        raise BadRowsError(rejects, len(triplets) + len(rejects), "Correct these rows, or take them out.")
    if not any(triplet.is_negative for triplet in triplets):
        raise NoRowsLeft(f"{source} has no row with a negative judgment: there is nothing to refine")
    return triplets


def _write_requests(triplets: Sequence[Triplet], source: Path, output: Path) -> None:
    with open_stage("refine_requests", output, Instruction, {"triplets": source}, {"task": REFINE_TASK}) as stage:
        if not stage.done:
            asked = [refine_request(triplet) for triplet in triplets if triplet.is_negative]
            stage.finish(asked, {"align_n": len(asked), "align_p": len(triplets) - len(asked)})


def _join(triplets: Sequence[Triplet], source: Path, answers: Path, output: Path) -> None:
    with open_stage("refine", output, RefinedRow, {"triplets": source, "responses": answers}, {}) as stage:
        if stage.done:
            log.info("%s is there already, made of the same triplets in the same way", output)
            return
        replies = {row.id: row.response for row in read_records(answers, Response)}
        rows, left_out = [], defaultdict(list)
        for each in triplets:
            refinement = replies[each.id] if each.is_negative else None
            row = RefinedRow(each.id, each.instruction, each.response, each.judgment, refinement)
            try:
                if make_triplet(vars(row), COLUMNS, row.id, source="").refinement is None and each.is_negative:
                    raise RowError(NO_REFINEMENT)
                rows.append(row)
            except RowError as error:
                left_out[str(error).partition(":")[0]].append(each.id)
        refined = sum(row.refinement is not None for row in rows)
        reasons = {reason: len(ids) for reason, ids in left_out.items()}
        stage.finish(rows, {"refined": refined, "align_p": len(rows) - refined, **reasons})
        log.info("%s: %s refined, %d Align-P as they were", output, counted(refined, "response"), len(rows) - refined)
        for reason, ids in left_out.items():
            log.warning("%s left out, %s: %s", counted(len(ids), "row"), reason, ", ".join(ids[:5]))
