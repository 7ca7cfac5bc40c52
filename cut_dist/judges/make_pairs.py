"""The judge that `judge.name` picks, as one that compares two responses."""

from __future__ import annotations

from pathlib import Path

from cut_dist.judges.make import make_judge
from cut_dist.judges.pairwise import HumanPairs, PairJudge, VerdictPairs, VerifiablePairs
from cut_dist.online.config import OnlineConfig


def make_pair_judge(cfg: OnlineConfig, folder: Path) -> PairJudge:
    """Build it; `folder` is where people find their sheet, `to_compare.csv`.

    `endpoint` and `human` see both responses; `verifiable` counts the problems of each; `local` gives each a verdict.
    """
    if cfg.judge.name == "verifiable":
        return VerifiablePairs()
    if cfg.judge.name == "human":
        return HumanPairs(folder / "to_compare.csv", cfg.judge.port)
    if cfg.judge.name == "endpoint":
        from cut_dist.judges.endpoint_pairs import EndpointPairs

        return EndpointPairs(cfg.judge, make_judge(cfg).account)  # one budget for all that is asked of the judge
    return VerdictPairs(make_judge(cfg))
