"""How many instructions, and how many checks, a set of responses satisfies: strictly and loosely, and by kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cut_dist.verifiable.judging import VerifiableVerdict, judge
from cut_dist.verifiable.registry import CheckLike


@dataclass(frozen=True)
class KindAccuracy:
    """One kind of check: how many there were, and the shares of them that held (0 to 1)."""

    checks: int
    strict: float
    loose: float


@dataclass(frozen=True)
class Accuracy:
    """Shares from 0 to 1, of instructions whose checks all hold and of single checks that hold."""

    instructions: int
    checks: int
    instruction_strict: float
    instruction_loose: float
    check_strict: float
    check_loose: float
    by_kind: dict[str, KindAccuracy]


def accuracy(pairs: Iterable[tuple[str, Sequence[CheckLike]]]) -> Accuracy:
    """Accuracy of (response, checks) pairs.

    Raises:
        ValueError: no pairs.
        CheckError: a check that can't be made.
    """
    return accuracy_of(judge(response, checks) for response, checks in pairs)


def accuracy_of(verdicts: Iterable[VerifiableVerdict]) -> Accuracy:
    """Accuracy of responses that are judged already.

    Raises:
        ValueError: no verdicts: a share of nothing has no value.
    """
    verdicts = list(verdicts)
    if not verdicts:
        raise ValueError("accuracy of no responses at all: give at least one")
    by_kind: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for verdict in verdicts:
        for kind, strict, loose in zip(verdict.kinds, verdict.strict_by_check, verdict.loose_by_check):
            by_kind[kind].append((strict, loose))
    checks = [pair for pairs in by_kind.values() for pair in pairs]
    return Accuracy(
        instructions=len(verdicts),
        checks=len(checks),
        instruction_strict=_share(verdict.satisfactory for verdict in verdicts),
        instruction_loose=_share(verdict.loose for verdict in verdicts),
        check_strict=_share(strict for strict, _ in checks),
        check_loose=_share(loose for _, loose in checks),
        by_kind={kind: _by_kind(by_kind[kind]) for kind in sorted(by_kind)},
    )


def _by_kind(pairs: list[tuple[bool, bool]]) -> KindAccuracy:
    return KindAccuracy(len(pairs), _share(strict for strict, _ in pairs), _share(loose for _, loose in pairs))


def _share(held: Iterable[bool]) -> float:
    held = list(held)
    return sum(held) / len(held)
