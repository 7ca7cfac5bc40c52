"""The judge that `judge.name` picks, and which of its settings change what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cut_dist.judges.base import Judge
from cut_dist.lineage import model_record
from cut_dist.model.resolve import resolve_model
from cut_dist.run_identity import identity

if TYPE_CHECKING:
    from cut_dist.online.config import OnlineConfig


def make_judge(cfg: OnlineConfig) -> Judge:
    """Build the judge of `cfg.judge`; what it needs is imported only here."""
    return _MAKERS[cfg.judge.name](cfg)


def judge_settings(cfg: OnlineConfig) -> dict[str, Any]:
    """What changes the judgments, as plain values: the judge's part of the run's identity, and a local model's hash."""
    settings = {**identity(cfg)["judge"], "seed": cfg.seed}
    if cfg.judge.name == "local":
        settings |= {"model": model_record(resolve_model(cfg.judge.model)), "precision": cfg.train.precision}
    return settings


def _verifiable(cfg: OnlineConfig) -> Judge:
    from cut_dist.judges import verifiable

    return verifiable.VerifiableJudge()


def _endpoint(cfg: OnlineConfig) -> Judge:
    from cut_dist.judges import endpoint

    return endpoint.make(cfg)


def _local(cfg: OnlineConfig) -> Judge:
    from cut_dist.judges import local

    return local.make(cfg)


def _human(cfg: OnlineConfig) -> Judge:
    from cut_dist.judges import human

    return human.make(cfg)


_MAKERS: Mapping[str, Callable[[OnlineConfig], Judge]] = {
    "verifiable": _verifiable,
    "endpoint": _endpoint,
    "local": _local,
    "human": _human,
}
