"""Which of two responses to the same instruction is better: the interface, and judges of single responses in its terms.

A judge may favour a position, so each pair is put to it in both orders. Only what it says in both is a win or a loss;
where the orders disagree it is a tie, and counted as inconsistent too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from cut_dist.judges.base import Judge, Judged, JudgeRequest
from cut_dist.judges.human import ask
from cut_dist.judges.human_form import COMPARE, Question
from cut_dist.verifiable import judge as check
from cut_dist.wording import UserError

Outcome = Literal["win", "tie", "loss"]


@dataclass(frozen=True)
class Pair:
    """Two responses to an instruction: that of the model at hand, and that of the one it is compared with.

    Attributes:
        metadata: what is known of the instruction beside its words, such as its checks.
    """

    id: str
    instruction: str
    ours: str
    rival: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preference:
    """What a judge says of a pair.

    Attributes:
        id: that of the pair.
        outcome: for our response, of all orders together; None where the judge gave no verdict.
        orders: the outcome for our response by order: shown first, shown second. A single one where the judge sees
            each response by itself, or where one person was asked in one order.
        detail: how it was come to, in plain JSON values.
    """

    id: str
    outcome: Outcome | None
    orders: Sequence[Outcome | None]
    detail: Mapping[str, Any] = field(default_factory=dict)


class PairJudge(Protocol):
    """Anything that compares. It may answer in any order; the caller writes each answer down as it comes."""

    def compare(self, pairs: Sequence[Pair], done: Set[str] = frozenset()) -> Iterator[Preference]:
        """One `Preference` for each pair that is not done.

        Args:
            pairs: all of them, see `judges.base.Judge`.
            done: ids that an earlier start has compared.
        """


def combined(orders: Sequence[Outcome | None]) -> Outcome | None:
    """The outcome of all orders: what they agree on, a tie where they don't, None where one has none."""
    if None in orders:
        return None
    return orders[0] if len(set(orders)) == 1 else "tie"


class VerifiablePairs:
    """Compares by the checks of the instruction: the response with fewer problems is better."""

    def compare(self, pairs: Sequence[Pair], done: Set[str] = frozenset()) -> Iterator[Preference]:
        for pair in pairs:
            if pair.id in done:
                continue
            checks = pair.metadata.get("checks")
            if not checks:
                raise UserError(
                    f"judge=verifiable: the instruction {pair.id} has no checks in its metadata; take another judge"
                )
            ours, rival = (len(check(text, checks).problems) for text in (pair.ours, pair.rival))
            outcome: Outcome = "win" if ours < rival else "loss" if rival < ours else "tie"
            yield Preference(pair.id, outcome, [outcome], {"judge": "verifiable", "problems": [ours, rival]})


class VerdictPairs:
    """Compares by the verdicts of a judge of single responses: satisfactory is better than unsatisfactory."""

    def __init__(self, judge: Judge) -> None:
        self.inner = judge

    def compare(self, pairs: Sequence[Pair], done: Set[str] = frozenset()) -> Iterator[Preference]:
        sides = {f"{pair.id}/{side}": (pair.id, side) for pair in pairs for side in ("ours", "rival")}
        requests = [
            _request(f"{pair.id}/{side}", pair, text)
            for pair in pairs
            for side, text in (("ours", pair.ours), ("rival", pair.rival))
        ]
        half: dict[str, dict[str, Judged]] = {}
        for judged in self.inner.judge(requests, {side for side, (id, _) in sides.items() if id in done}):
            id, side = sides[judged.id]
            both = half.setdefault(id, {})
            both[side] = judged
            if len(both) == 2:
                yield _by_verdicts(id, **half.pop(id))


class HumanPairs:
    """Asks whoever sits here, once a pair and without saying which is whose; which is shown first depends on its id."""

    def __init__(self, sheet: Path, port: int | None = None) -> None:
        self.sheet, self.port = sheet, port

    def compare(self, pairs: Sequence[Pair], done: Set[str] = frozenset()) -> Iterator[Preference]:
        ours = {pair.id: "A" if ours_first(pair) else "B" for pair in pairs}
        questions = [Question(pair.id, pair.instruction, _in_order(pair, first=ours[pair.id] == "A")) for pair in pairs]
        for answer in ask(COMPARE, questions, done, self.sheet, self.port):
            better = "win" if answer.verdict == ours[answer.id] else "loss"
            outcome: Outcome = "tie" if answer.verdict == "tie" else better
            detail = {"judge": "human", "ours_shown_as": ours[answer.id], "reason": answer.words or None}
            yield Preference(answer.id, outcome, [outcome], detail)


def ours_first(pair: Pair) -> bool:
    """Which order a pair is shown in, drawn by its id and texts, so that half of all are in either."""
    content = "\0".join((pair.id, pair.ours, pair.rival)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).digest()[0] % 2 == 0


def _in_order(pair: Pair, *, first: bool) -> tuple[str, str]:
    return (pair.ours, pair.rival) if first else (pair.rival, pair.ours)


def _request(id: str, pair: Pair, response: str) -> JudgeRequest:
    messages = [{"role": "user", "content": pair.instruction}, {"role": "assistant", "content": response}]
    return JudgeRequest(id, messages, pair.metadata)


def _by_verdicts(id: str, ours: Judged, rival: Judged) -> Preference:
    detail = {"ours": ours.satisfactory, "rival": rival.satisfactory, "judge": dict(ours.detail).get("judge")}
    if ours.satisfactory is None or rival.satisfactory is None:
        return Preference(id, None, [None], detail)
    better = ours.satisfactory - rival.satisfactory
    outcome: Outcome = ("tie", "win", "loss")[better]
    return Preference(id, outcome, [outcome], detail)
