"""What the section `objective` asks of data, packing and loss.

`objective.without` leaves a part of CUT out of training, as in the paper's table 4. An evaluation measures CUT as a
whole whatever is left out, so that runs can be compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cut_dist.config import Config, ObjectiveConfig
from cut_dist.data.examples import Prepared
from cut_dist.data.prepare import prepare
from cut_dist.data.templates import Tokenizer

# What the loss takes in training, where a part is left out.
_INSTEAD = {
    "l2_align_n": {"authentic_loss": False},
    "detection": {"lam": 0.0, "lam_instruction": None, "floor": 0.0},  # p⁻ > 0·p⁺ everywhere
    "dynamic_weight": {"gamma": 0.0},
}


def loss_options(objective: ObjectiveConfig) -> dict[str, float | None]:
    """λ, α, γ, λ₂ and σ, as `CutModel` takes them and an evaluation measures by them."""
    return {name: getattr(objective, name) for name in ("lam", "alpha", "gamma", "lam_instruction", "floor")}


def training_options(objective: ObjectiveConfig) -> dict[str, Any]:
    """All arguments of the loss while the model trains."""
    return loss_options(objective) | _INSTEAD.get(objective.without, {})


def packing_options(objective: ObjectiveConfig) -> dict[str, Any]:
    """Which contexts a training step packs, and which of them have no loss, as `rank_micro_batches` takes them."""
    contrast = "instruction" if objective.without == "detection" else objective.contrast
    return {"contrast": contrast, "no_grad": ("authentic", "fake") if objective.without == "l2_align_n" else ("fake",)}


def encoding(objective: ObjectiveConfig) -> str:
    """How triplets become examples, as `prepare` takes it. CUT without L1 is the paper's Hindsight."""
    return "hindsight" if objective.without == "l1" else objective.name


def prepare_data(cfg: Config, tokenizer: Tokenizer) -> Prepared:
    """The data that a training with `cfg` sees. Without the first part of L2 it holds no Align-P example."""
    data = replace(cfg.data, align_p_ratio=0.0) if cfg.objective.without == "l2_align_p" else cfg.data
    return prepare(
        data, tokenizer, seed=cfg.seed, fake_judgment=cfg.objective.fake_judgment, objective=encoding(cfg.objective)
    )
