"""Which model is measured: its weights by hash, or what a server calls it."""

from __future__ import annotations

from typing import Any

from cut_dist.lineage import model_record, parent_run
from cut_dist.model.resolve import resolve_model
from cut_dist.online.config import OnlineConfig


def weights_record(cfg: OnlineConfig) -> dict[str, Any]:
    """The weights of `cfg.model`: name, revision and the files' hashes, or the sizes and seed of random ones."""
    model = cfg.model
    if model.random_init is not None:
        return {"random_init": model.random_init, "seed": cfg.seed}
    files = model_record(resolve_model(model.name_or_path, model.revision))
    return {**files, "name": model.name_or_path, "revision": model.revision}


def answering_record(cfg: OnlineConfig) -> dict[str, Any]:
    """Who answers: the weights; or only the name where a server answers that online rounds didn't start themselves.

    A server's address is no part of it: the same model is served from another one tomorrow.
    """
    if _is_known_by_name(cfg):
        return {"name": cfg.generator.endpoint.model, "served": True}
    return weights_record(cfg)


def _is_known_by_name(cfg: OnlineConfig) -> bool:
    return cfg.generator.name == "endpoint" and not cfg.generator.serve


def display_name(cfg: OnlineConfig) -> str:
    """What a leaderboard may call it: `<experiment>/<run>` of a run of this project, else the model's own name."""
    if _is_known_by_name(cfg):
        return cfg.generator.endpoint.model
    name = cfg.model.name_or_path
    if name is None:
        return "random weights"
    parent = parent_run(name)
    return parent["run"] if parent else name
