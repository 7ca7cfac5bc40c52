"""Suite `win_rate`: our answers against those of another model to the same instructions, pair by pair, by any judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cut_dist.data.triplets import DataError
from cut_dist.judges.pairwise import Pair, PairJudge, Preference
from cut_dist.online.records import Response, read_records
from cut_dist.online.stage import open_stage

PREFERENCES = "preferences.jsonl"
_Z = 1.959964  # of a normal distribution, for 95 %


def pair_up(ours: Sequence[Response], rival: Path) -> list[Pair]:
    """Pairs of our responses with those in the file `rival`, by the instruction's id; identical ones too.

    Raises:
        RecordError: the file is no responses.jsonl.
        DataError: it lacks an instruction, or asks something else under the same id.
    """
    theirs: dict[str, Response] = {}
    for row in read_records(rival, Response):
        theirs.setdefault(row.instruction_id, row)  # the first sample, where there are several
    pairs, missing, other = [], [], []
    for row in ours:
        their = theirs.get(row.instruction_id)
        if their is None:
            missing.append(row.instruction_id)
        elif their.instruction != row.instruction:
            other.append(row.instruction_id)
        else:
            pairs.append(Pair(row.instruction_id, row.instruction, row.response, their.response, row.metadata))
    if missing or other:
        what = "has no response to" if missing else "was asked something else under the id"
        ids = missing or other
        raise DataError(
            f"{rival} {what} {ids[0]!r} ({len(ids)} of {len(ours)} instructions): let both models answer the same file"
        )
    return pairs


def compare(
    pairs: Sequence[Pair], judge: PairJudge, folder: Path, inputs: dict[str, Path], settings: dict[str, Any]
) -> list[Preference]:
    """The judge's preferences, in the order of the pairs; kept in `folder`, so that no pair is judged twice.

    Two identical responses are a tie, and nobody is asked.
    """
    with open_stage("compare", folder / PREFERENCES, Preference, inputs, settings) as stage:
        if not stage.done:
            stage.append(
                Preference(pair.id, "tie", ["tie"], {"identical": True})
                for pair in pairs
                if pair.ours == pair.rival and pair.id not in stage.rows
            )
            for preference in judge.compare(pairs, set(stage.rows)):
                stage.append([preference])
            rows = [stage.rows[pair.id] for pair in pairs]
            cost = sum(row.detail.get("cost", 0.0) for row in rows)
            stage.finish(rows, {"pairs": len(rows)}, cost=cost)
    return read_records(folder / PREFERENCES, Preference)


def summarise(preferences: Sequence[Preference]) -> dict[str, Any]:
    """The win rate, (wins + ties / 2) / judged, with its 95 % interval, and the counts behind it.

    The interval is Wilson's score interval for that mean. A tie varies less than a win and a loss, so with ties it is
    wider than it need be, never too narrow.

    Returns:
        `win_rate`, `low`, `high` (None where nothing was judged), `wins`, `ties`, `losses`, `inconsistent` (those of
        the ties whose orders disagreed), `undecided` (no verdict: left out of all others).
    """
    outcomes = [row.outcome for row in preferences]
    wins, ties, losses = (outcomes.count(each) for each in ("win", "tie", "loss"))
    judged = wins + ties + losses
    rate = (wins + ties / 2) / judged if judged else None
    low, high = wilson(rate, judged) if judged else (None, None)
    return {
        "win_rate": rate, "low": low, "high": high,
        "wins": wins, "ties": ties, "losses": losses,
        "inconsistent": sum(row.outcome is not None and len(set(row.orders)) > 1 for row in preferences),
        "undecided": outcomes.count(None),
    }  # fmt: skip


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share of `count` trials."""
    shrink = 1 + _Z**2 / count
    middle = (share + _Z**2 / (2 * count)) / shrink
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)
