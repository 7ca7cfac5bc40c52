"""The judge that is a program: the checks of each instruction, which its metadata lists, done on the response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from cut_dist.judges.base import Judged, JudgeRequest
from cut_dist.verifiable.judging import judge
from cut_dist.wording import UserError


class VerifiableJudge:
    """Judges by `metadata["checks"]`, strictly; words and verdict are a function of the response alone.

    `detail` has the loose verdict, and by kind of check where in the response (begin, end) something is wrong.
    """

    def judge(self, requests: Sequence[JudgeRequest], done: Set[str] = frozenset()) -> Iterator[Judged]:
        for request in requests:
            if request.id in done:
                continue
            checks = request.metadata.get("checks")
            if not checks:
                raise UserError(
                    f"judge=verifiable: the instruction of {request.id} has no checks in its metadata; take "
                    "instructions=verifiable, or another judge"
                )
            verdict = judge(request.response, checks)
            problems = [{"kind": each.kind, "spans": each.spans} for each in verdict.problems]
            detail = {"loose": verdict.loose, "problems": problems}
            yield Judged(request.id, verdict.satisfactory, verdict.judgment, detail)
