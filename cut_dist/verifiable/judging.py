"""One response judged by its checks: a verdict and, where it fails, a judgment in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cut_dist.verifiable.base import Check, Problem, pick
from cut_dist.verifiable.registry import CheckLike, make_checks

_EMPTY = (
    "The response is empty, so it does nothing that the instruction asks for.",
    "There is no answer at all: the response has no text.",
    "The response contains no text, where an answer was asked for.",
)


@dataclass(frozen=True)
class VerifiableVerdict:
    """What the checks say of one response.

    Attributes:
        satisfactory: every check holds for the response as it is (strict).
        loose: every check holds for the response or for one of its variants (`loose_variants`), each its own.
        judgment: what is wrong, one or two sentences for each failed check; None where satisfactory.
        problems: the same, piece by piece, with the places in the response.
        kinds: the kinds of the checks, in their order.
        strict_by_check: for each check, whether it holds for the response as it is.
        loose_by_check: for each check, whether it holds for the response or a variant.
    """

    satisfactory: bool
    loose: bool
    judgment: str | None
    problems: tuple[Problem, ...]
    kinds: tuple[str, ...]
    strict_by_check: tuple[bool, ...]
    loose_by_check: tuple[bool, ...]


def judge(response: str, checks: Sequence[CheckLike]) -> VerifiableVerdict:
    """Judge a response by the checks of its instruction. The same arguments give the same words everywhere.

    Args:
        response: any text.
        checks: checks, or objects {"kind": ..., "params": {...}} as an instruction's metadata lists them.

    Raises:
        CheckError: a check that can't be made.
    """
    made = make_checks(checks)
    if not response.strip():
        by_check: list[list[Problem]] = [[Problem("empty", pick(_EMPTY, response, *(check.kind for check in made)))]]
        problems, strict, loose = by_check[0], [False] * len(made), [False] * len(made)
    else:
        by_check = [check.problems(response) for check in made]
        problems, strict = [problem for found in by_check for problem in found], [not found for found in by_check]
        variants = loose_variants(response)
        loose = [ok or _holds_for_any(check, variants) for ok, check in zip(strict, made)]
    return VerifiableVerdict(
        satisfactory=all(strict),
        loose=all(loose),
        judgment=" ".join(problem.words for problem in problems) or None,
        problems=tuple(problems),
        kinds=tuple(check.kind for check in made),
        strict_by_check=tuple(strict),
        loose_by_check=tuple(loose),
    )


def loose_variants(response: str) -> list[str]:
    """The response without its first line, without its last, without both; and it and these without asterisks.

    An opening such as "Sure, here is a list:", a closing remark or bold type then costs nothing. Blank variants are
    left out.
    """
    rows = response.strip().split("\n")
    pieces = [response, "\n".join(rows[1:]), "\n".join(rows[:-1]), "\n".join(rows[1:-1])]
    variants = [pieces[1:], [piece.replace("*", "") for piece in pieces]]
    return [text.strip() for part in variants for text in part if text.strip()]


def _holds_for_any(check: Check, variants: list[str]) -> bool:
    return any(not check.problems(variant) for variant in variants)
