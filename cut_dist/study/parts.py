"""The parts of the study in the laboratory: which cells they have. Read with docs/study.md.

tuning      each method's learning rate and epochs (CUT's λ and DPO's β too), on a laboratory of its own
methods     paper, tables 2 and 3: the methods side by side
ablations   table 4
rounds      table 6: rounds on fresh judgments against one training on as many at once
detection   precision and recall of the inappropriate tokens as λ runs
judgments   what the quality of judgments does, to CUT and to refinements made by them (ILF)
weights     λ and contrast, γ and α, the ratio of Align-P
sizes       detection by models of other sizes

and `smollm2`, a real model outside it (real_cells.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from cut_dist.config_check import require
from cut_dist.study.cells import TUNING_SEED, Cell, Numbers, Results
from cut_dist.study.detection import detection_curves
from cut_dist.study.judgments import QUALITIES
from cut_dist.study.lab import Lab
from cut_dist.study.real_cells import real_cells
from cut_dist.study.rows import write_rows
from cut_dist.study.trainer import TrainingFailed, discard

if TYPE_CHECKING:
    from cut_dist.study.config import StudyConfig, StudyKeys

METHODS = ("sft", "forward_prediction", "hindsight", "ilf_mle", "ilf_dpo", "cut")
GRIDS = {"cut": ("lam", (1.1, 1.5, 2.0)), "ilf_dpo": ("beta", (0.1, 0.5))}  # keys of single methods that are tuned too
ABLATIONS = ("l1", "l2_align_p", "l2_align_n", "detection", "dynamic_weight")
LAMBDAS = {"fake": (0.7, 1.1, 1.5, 2.0, 3.0, 5.0), "instruction": (1.1, 2.0, 5.0)}  # by contrast
GAMMAS_ALPHAS = ((0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, 0.25), (1.0, 0.5))
RATIOS = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Recipe:
    """A training: keys of the groups `objective`, `train` and `data` that differ from conf/study.yaml."""

    objective: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


def lab_cells(study: StudyKeys) -> Iterator[Cell]:
    """The cells of the laboratory, in the order in which they are best made."""
    seeds = range(study.seeds)
    for seed in (TUNING_SEED, *seeds):
        yield Cell(f"base/{seed}", seed, _base, (), Lab)
        yield Cell(f"samples/{seed}", seed, _samples, (f"base/{seed}",), Lab)
    yield from _tuning(study)
    for part in (_methods, _ablations, _rounds, _detection, _judgments, _weights, _sizes):
        for seed in seeds:
            yield from part(study, seed)


# ---- base models and their judged samples ----------------------------------------------------------------------------


def _base(lab: Lab, results: Results) -> Numbers:
    lab.pretrain()
    return lab.measure(lab.base)


def _samples(lab: Lab, results: Results) -> Numbers:
    """The triplets that all methods train on, with refinements by the base model itself."""
    samples = lab.sample(lab.base, "samples", lab.cfg.study.samples)
    rows = lab.refined(lab.base, lab.judged(samples))
    write_rows(lab.folder / "triplets.jsonl", rows)
    answers = {s.id: " ".join(s.item.answer) for s in samples}
    refined = [row for row in rows if row["judgment"] is not None]
    right = sum(row["refinement"] == answers[row["id"]] for row in refined)
    return {"right": sum(s.right for s in samples) / len(samples), "refined_right": right / len(refined)}


# ---- trainings -------------------------------------------------------------------------------------------------------


def _tuning(study: StudyKeys) -> Iterator[Cell]:
    for method in METHODS:
        for name, recipe in _candidates(study, method).items():
            yield _training(study, f"tuning/{TUNING_SEED}/{name}", TUNING_SEED, lambda *_, r=recipe: r, which="dev")


def _methods(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for method in METHODS:
        yield _training(study, f"methods/{seed}/{method}", seed, partial(tuned, method=method), tuned_by=method)


def _ablations(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for name in ABLATIONS:
        yield _cut(study, f"ablations/{seed}/{name}", seed, {"without": name})


def _judgments(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for method, quality in itertools.product(("cut", "ilf_mle"), QUALITIES):
        measure = partial(_of_quality, method=method, quality=quality)
        yield Cell(f"judgments/{seed}/{method}-{quality}", seed, measure, _needs(study, seed, method), Lab)


def _weights(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for contrast, lam in ((contrast, lam) for contrast, lams in LAMBDAS.items() for lam in lams):
        yield _cut(study, f"weights/{seed}/{contrast}-lam{lam:g}", seed, {"contrast": contrast, "lam": lam})
    for gamma, alpha in GAMMAS_ALPHAS:
        yield _cut(study, f"weights/{seed}/gamma{gamma:g}-alpha{alpha:g}", seed, {"gamma": gamma, "alpha": alpha})
    for ratio in RATIOS:
        yield _cut(study, f"weights/{seed}/ratio{ratio:g}", seed, {}, data={"align_p_ratio": ratio})


def _cut(
    study: StudyKeys, name: str, seed: int, objective: Mapping[str, Any], data: Mapping[str, Any] | None = None
) -> Cell:
    """CUT as it was tuned, with some keys set otherwise."""

    def recipe(study: StudyKeys, results: Results) -> Recipe:
        best = tuned(study, results, method="cut")
        return Recipe({**best.objective, **objective}, best.train, data or {})

    return _training(study, name, seed, recipe, tuned_by="cut")


def _training(
    study: StudyKeys, name: str, seed: int, recipe: Callable[[StudyKeys, Results], Recipe], *,
    tuned_by: str | None = None, which: str = "heldout",
) -> Cell:  # fmt: skip
    """Train the base model on the laboratory's triplets and measure it."""

    def measure(lab: Lab, results: Results) -> Numbers:
        return _trained(lab, name, recipe(lab.cfg.study, results), which=which)

    return Cell(name, seed, measure, _needs(study, seed, tuned_by), Lab)


def _trained(lab: Lab, name: str, recipe: Recipe, triplets: str = "triplets.jsonl", which: str = "heldout") -> Numbers:
    run = name.replace("/", "_")
    model = lab.train(run, lab.base, lab.folder / triplets, recipe.objective, recipe.train, recipe.data)
    numbers = lab.measure(model, which)
    discard(lab.folder / run)
    return {"recipe": {key: dict(own) for key, own in vars(recipe).items()}, **numbers}


def _of_quality(lab: Lab, results: Results, *, method: str, quality: str) -> Numbers:
    """The same samples with judgments of one quality, and for ILF refinements by these."""
    name = f"{method}-{quality}"
    rows = lab.judged(lab.sample(lab.base, "samples", lab.cfg.study.samples), quality)
    write_rows(lab.folder / f"{name}.jsonl", lab.refined(lab.base, rows) if method == "ilf_mle" else rows)
    recipe = tuned(lab.cfg.study, results, method=method)
    return _trained(lab, f"judgments/{lab.seed}/{name}", recipe, f"{name}.jsonl")


# ---- what was tuned --------------------------------------------------------------------------------------------------


def tuned(study: StudyKeys, results: Results, *, method: str) -> Recipe:
    """The candidate of `method` with the best greedy accuracy on the tuning laboratory; of equals the first.

    Over all families alike, the never judged ones too: what ruins these is not to be chosen.

    Raises:
        TrainingFailed: none of its candidates could be measured.
    """

    def score(name: str) -> float:
        families = results[f"tuning/{TUNING_SEED}/{name}"].get("families")
        return sum(families.values()) / len(families) if families else -1.0

    candidates = _candidates(study, method)
    best = max(candidates, key=score)
    if score(best) < 0:
        raise TrainingFailed(f"none of the candidates of {method} could be measured, so it has no settings")
    return candidates[best]


def _candidates(study: StudyKeys, method: str) -> dict[str, Recipe]:
    key, values = GRIDS.get(method, ("", (None,)))
    found = {}
    for value, lr, epochs in itertools.product(values, study.lrs, study.epochs):
        objective = {"name": method} | ({key: value} if key else {})
        name = f"{method}-lr{lr:g}-epochs{epochs:g}" + (f"-{key}{value:g}" if key else "")
        found[name] = Recipe(objective, {"lr": lr, "epochs": epochs})
    return found


def _needs(study: StudyKeys, seed: int, tuned_by: str | None) -> tuple[str, ...]:
    tuning = [f"tuning/{TUNING_SEED}/{name}" for name in _candidates(study, tuned_by)] if tuned_by else []
    return (f"samples/{seed}", *tuning)


# ---- rounds, and detection -------------------------------------------------------------------------------------------


def _rounds(study: StudyKeys, seed: int) -> Iterator[Cell]:
    yield Cell(f"rounds/{seed}/online", seed, _online, _needs(study, seed, "cut"), Lab)
    yield Cell(f"rounds/{seed}/offline", seed, _offline, _needs(study, seed, "cut"), Lab)


def _online(lab: Lab, results: Results) -> Numbers:
    """Rounds, each on fresh judged samples of the model that the last one left."""
    study, recipe = lab.cfg.study, tuned(lab.cfg.study, results, method="cut")
    model, accuracy, right = lab.base, [], []
    for number in range(1, study.rounds + 1):
        name = f"round{number}"
        samples = lab.sample(model, name, study.round_samples)
        write_rows(lab.folder / f"{name}.jsonl", lab.judged(samples))
        right.append(sum(s.right for s in samples) / len(samples))
        model = lab.train(name, model, lab.folder / f"{name}.jsonl", recipe.objective, recipe.train)
        accuracy.append(lab.measure(model))
    return {**accuracy[-1], "rounds": accuracy, "right": right}


def _offline(lab: Lab, results: Results) -> Numbers:
    """One training on as many judged samples of the base model."""
    study, recipe = lab.cfg.study, tuned(lab.cfg.study, results, method="cut")
    samples = lab.sample(lab.base, "offline", study.rounds * study.round_samples)
    write_rows(lab.folder / "offline.jsonl", lab.judged(samples))
    return _trained(lab, f"rounds/{lab.seed}/offline", recipe, "offline.jsonl")


def _detection(study: StudyKeys, seed: int) -> Iterator[Cell]:
    yield Cell(f"detection/{seed}", seed, _detected, _needs(study, seed, None), Lab)


def _sizes(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for size in study.sizes:
        yield Cell(f"sizes/{seed}/{size}", seed, _of_size, (), partial(Lab, size=size))


def _of_size(lab: Lab, results: Results) -> Numbers:
    """Pretrain a base model of another size; what it detects in its own wrong samples."""
    lab.pretrain()
    return {**lab.measure(lab.base), **_detected(lab, results)}


def _detected(lab: Lab, results: Results) -> Numbers:
    return detection_curves(lab, lab.base, lab.sample(lab.base, "samples", lab.cfg.study.samples))


# ---- all of it -------------------------------------------------------------------------------------------------------


def study_cells(cfg: StudyConfig) -> list[Cell]:
    """The cells of the parts that `study.parts` names, all without; and those that they need.

    Raises:
        ConfigError: there is no part of that name.
    """
    cells = [*lab_cells(cfg.study), *real_cells(cfg.study)]
    known = dict.fromkeys(cell.name.split("/")[0] for cell in cells)
    for part in cfg.study.parts:
        require(part in known, "study.parts", part, f"must be one of {', '.join(known)}")
    wanted = {cell.name for cell in cells if not cfg.study.parts or cell.name.split("/")[0] in cfg.study.parts}
    by_name = {cell.name: cell for cell in cells}
    waiting = list(wanted)
    while waiting:
        new = set(by_name[waiting.pop()].needs) - wanted
        wanted |= new
        waiting += new
    return [cell for cell in cells if cell.name in wanted]
