"""Suite `verifiable`: the share of held-out instructions that are followed, by the programs that check them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from cut_dist.data.triplets import DataError
from cut_dist.online.records import Response
from cut_dist.verifiable import CheckError, accuracy_of, judge

SHARES = ("strict", "loose", "check_strict", "check_loose")


def score(responses: Sequence[Response]) -> dict[str, Any]:
    """Accuracy, strict and loose, of instructions (`strict`, `loose`) and of single checks, also by kind of check.

    Raises:
        DataError: an instruction has no checks, or some that can't be made.
    """
    verdicts = []
    for response in responses:
        checks = response.metadata.get("checks")
        if not checks:
            raise DataError(f"the instruction {response.instruction_id!r} has no metadata.checks: nothing to verify")
        try:
            verdicts.append(judge(response.response, checks))
        except CheckError as error:
            raise DataError(f"the instruction {response.instruction_id!r}: {error}") from error
    if not verdicts:
        raise DataError("no instructions to verify: give some in stage.input")
    found = dataclasses.asdict(accuracy_of(verdicts))
    truncated = sum(response.finish_reason == "length" for response in responses)
    strict, loose = found.pop("instruction_strict"), found.pop("instruction_loose")
    return {"strict": strict, "loose": loose, **found, "truncated": truncated}
