"""A loss or gradient that is not finite, on any rank, in any stage: no update anywhere, and the next step is clean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.mark.distributed
def test_no_rank_takes_a_step_that_is_not_finite_anywhere(run_ranks, tmp_path):
    run_ranks([str(Path(__file__).with_name("rank_nonfinite.py")), str(tmp_path)], 2)
    seen = json.loads((tmp_path / "cases.json").read_text())
    cases = [row for row in seen[0] if "kind" in row]
    assert len(cases) == 8 * 2 * 3 * 3
    assert seen[0] == seen[1], "the ranks disagree"
    for row in cases:
        assert not row["took"], row
        assert row["good_after"] and row["same_gradients"] and row["unchanged"], row
    assert all(row["step_after"] for row in seen[0] if "step_after" in row)
