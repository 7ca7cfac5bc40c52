"""The stage responses.jsonl and judgments.jsonl → triplets.jsonl, which training reads."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cut_dist.data.triplets import RowError, make_triplet
from cut_dist.judges.base import Judged
from cut_dist.online.config import OnlineConfig
from cut_dist.online.records import Response, read_records
from cut_dist.online.stage import open_stage
from cut_dist.wording import counted

log = logging.getLogger(__name__)

COLUMNS = {"id": "id", "instruction": "instruction", "response": "response", "judgment": "judgment"}


@dataclass(frozen=True)
class TripletRow:
    """A line of triplets.jsonl; `judgment` is None for Align-P."""

    id: str
    instruction: str
    response: str
    judgment: str | None
    round: int


def make_triplets(
    cfg: OnlineConfig, number: int, responses: Path, judgments: Path, earlier: Sequence[Path], output: Path
) -> None:
    """Join a round's responses and judgments; with `online.mix_earlier` a share of the earlier rounds' triplets too.

    Responses without a verdict, and rows that training would refuse (an empty response, a rejection that begins with
    "Perfect."), are left out and counted by reason in the manifest.

    Args:
        number: of the round, from 1.
        earlier: triplets.jsonl of the rounds before, oldest first; each round's own rows are drawn from.
    """
    inputs = {"responses": responses, "judgments": judgments}
    if cfg.online.mix_earlier:
        inputs |= {f"round_{index}": path for index, path in enumerate(earlier, 1)}
    settings = {"round": number, "seed": cfg.seed, "mix_earlier": cfg.online.mix_earlier}
    with open_stage("triplets", output, TripletRow, inputs, settings) as stage:
        if stage.done:
            return
        rows, left_out = _join(read_records(responses, Response), read_records(judgments, Judged), number)
        mixed = _mixed(cfg, number, earlier)
        counts = {
            "align_n": sum(row.judgment is not None for row in rows),
            "align_p": sum(row.judgment is None for row in rows),
            "from_earlier_rounds": len(mixed),
            **left_out,
        }
        stage.finish([*rows, *mixed], counts)
        for reason, count in left_out.items():
            log.warning("round %d: %s left out: %s", number, counted(count, "response"), reason)


def _join(
    responses: Sequence[Response], judgments: Sequence[Judged], number: int
) -> tuple[list[TripletRow], Counter[str]]:
    by_id = {judged.id: judged for judged in judgments}
    rows, left_out = [], Counter()
    for response in responses:
        judged = by_id[response.id]
        if judged.satisfactory is None:
            left_out["no verdict"] += 1
            continue
        judgment = None if judged.satisfactory else judged.judgment
        row = TripletRow(response.id, response.instruction, response.response, judgment, number)
        try:
            triplet = make_triplet(vars(row), COLUMNS, row.id, source="")
            if triplet.is_negative == judged.satisfactory:
                raise RowError('rejected in words that begin with "Perfect."')
            rows.append(row)
        except RowError as error:
            left_out[str(error).partition(":")[0]] += 1
    return rows, left_out


def _mixed(cfg: OnlineConfig, number: int, earlier: Sequence[Path]) -> list[TripletRow]:
    """The share `online.mix_earlier` of what the earlier rounds themselves made, drawn anew for each round."""
    if not cfg.online.mix_earlier:
        return []
    rows = [
        row for index, path in enumerate(earlier, 1) for row in read_records(path, TripletRow) if row.round == index
    ]
    count = round(cfg.online.mix_earlier * len(rows))
    chosen = np.random.default_rng([cfg.seed, number, 0x317]).choice(len(rows), count, replace=False)
    return [rows[i] for i in sorted(chosen)]
