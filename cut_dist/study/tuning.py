"""What each method is trained with: the best of its candidates on a laboratory that no result comes from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cut_dist.study.cells import TUNING_SEED, Numbers, Results
from cut_dist.study.trainer import TrainingFailed

if TYPE_CHECKING:
    from cut_dist.study.config import StudyKeys

ROUNDS = "rounds"  # CUT in rounds, whose trainings are shorter: tuned like a method
WEIGHTS = "cut_weights"  # γ and α of CUT, once the rest of it is tuned
GAMMAS_ALPHAS = ((0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, 0.25), (1.0, 0.5), (1.0, 2.0), (0.0, 2.0))
GRIDS = {"cut": ("lam", (1.1, 2.0)), "ilf_dpo": ("beta", (0.1, 0.5))}  # keys of single methods that are tuned too


@dataclass(frozen=True)
class Recipe:
    """A training: keys of the groups `objective` and `train` that differ from conf/study.yaml."""

    objective: Mapping[str, Any]
    train: Mapping[str, Any]


def candidates(study: StudyKeys, method: str) -> dict[str, Recipe]:
    """Name of a cell → recipe: every learning rate with every number of epochs and value of the method's own key.

    Of `WEIGHTS` only what differs from CUT as it was tuned.
    """
    if method == WEIGHTS:
        place = f"tuning/{TUNING_SEED}/{WEIGHTS}"
        return {f"{place}-gamma{g:g}-alpha{a:g}": Recipe({"gamma": g, "alpha": a}, {}) for g, a in GAMMAS_ALPHAS}
    key, values = GRIDS.get(method, ("", (None,)))
    found = {}
    for value, lr, epochs in itertools.product(values, study.lrs, study.epochs):
        objective = {"name": "cut" if method == ROUNDS else method} | ({key: value} if key else {})
        name = f"{method}-lr{lr:g}-epochs{epochs:g}" + (f"-{key}{value:g}" if key else "")
        found[f"tuning/{TUNING_SEED}/{name}"] = Recipe(objective, {"lr": lr, "epochs": epochs})
    return found


def tuned(study: StudyKeys, results: Results, *, method: str) -> Recipe:
    """The candidate of `method` with the best score; of equals the first.

    Raises:
        TrainingFailed: none of its candidates could be measured.
    """
    recipes = candidates(study, method)
    best = max(recipes, key=lambda name: score(results[name]))
    if score(results[best]) < 0:
        raise TrainingFailed(f"none of the candidates of {method} could be measured, so it has no settings")
    return like_cut(study, results, recipes[best].objective) if method == WEIGHTS else recipes[best]


def like_cut(study: StudyKeys, results: Results, objective: Mapping[str, Any]) -> Recipe:
    """CUT as it was tuned, with some keys of its objective set otherwise."""
    best = tuned(study, results, method="cut")
    return Recipe({**best.objective, **objective}, best.train)


def score(numbers: Numbers) -> float:
    """Greedy accuracy over all families alike, the never judged ones too: what ruins these is not to be chosen.

    Returns:
        From 0 to 1; −1 of a cell that failed.
    """
    families = numbers.get("families")
    return sum(families.values()) / len(families) if families else -1.0
