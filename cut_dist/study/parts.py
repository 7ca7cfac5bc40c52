"""The parts of the study in the laboratory: which cells they have. Read with docs/study.md.

tuning      each method's learning rate and epochs (CUT's λ and DPO's β too), on a laboratory of its own
methods     paper, tables 2 and 3: the methods side by side
ablations   table 4; and hindsight with CUT's learning rate and epochs, which CUT without L1 should equal
rounds      table 6: rounds on fresh judgments against one training on as many at once; and what may make the
            difference: as many of each kind, samples that are not fresh, the learning rate and epochs
detection   precision and recall of the inappropriate tokens as λ runs
judgments   what the quality of judgments does, to CUT and to refinements made by them (ILF)
weights     λ and contrast, γ and α and both tuned too, praise that the base model has never read
align_p     Align-P examples for each Align-N example, figure 7
sizes       detection by models of other sizes

and `smollm2`, a real model outside it (real_cells.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cut_dist.config_check import require
from cut_dist.study.cells import TUNING_SEED, Cell, Numbers, Results
from cut_dist.study.detection import detection_curves
from cut_dist.study.judgments import QUALITIES, UNREAD_PRAISE
from cut_dist.study.lab import Lab, Sample
from cut_dist.study.real_cells import real_cells
from cut_dist.study.rows import write_rows
from cut_dist.study.trainer import TrainingFailed, discard
from cut_dist.study.tuning import GAMMAS_ALPHAS, ROUNDS, WEIGHTS, Recipe, candidates, like_cut, tuned

if TYPE_CHECKING:
    from cut_dist.study.config import StudyConfig, StudyKeys

METHODS = ("sft", "forward_prediction", "hindsight", "ilf_mle", "ilf_dpo", "cut")
ABLATIONS = ("l1", "l2_align_p", "l2_align_n", "detection", "dynamic_weight")
LIKE_CUT = "hindsight_like_cut"
LAMBDAS = {"fake": (0.7, 1.1, 1.5, 2.0, 3.0, 5.0), "instruction": (1.1, 2.0, 5.0)}  # by contrast
TOGETHER = ((0.5, 1.0, 1.1), (0.5, 1.0, 1.5))  # γ, α and λ: the defaults with the paper's λ, and as they are
UNREAD_LAMBDAS = (1.1, 1.5)
RATIOS = (0.0, 0.25, 0.5, 1.0, 2.0)


def lab_cells(study: StudyKeys) -> Iterator[Cell]:
    """The cells of the laboratory, in the order in which they are best made."""
    seeds = range(study.seeds)
    for seed in (TUNING_SEED, *seeds):
        yield Cell(f"base/{seed}", seed, _base, (), Lab)
        yield Cell(f"samples/{seed}", seed, _samples, (f"base/{seed}",), Lab)
    yield from _tuning(study)
    for part in (_methods, _ablations, _rounds, _detection, _judgments, _weights, _align_p, _sizes):
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
    return {"right": sum(s.right for s in samples) / len(samples), **_refined_right(samples, rows)}


def _refined_right(samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]]) -> Numbers:
    """The share of right refinements; nothing where there are none."""
    answers = {s.id: " ".join(s.item.answer) for s in samples}
    right = [row["refinement"] == answers[row["id"]] for row in rows if row["judgment"] is not None]
    return {"refined_right": sum(right) / len(right)} if right else {}


# ---- trainings -------------------------------------------------------------------------------------------------------


def _tuning(study: StudyKeys) -> Iterator[Cell]:
    for method in METHODS:
        for name, recipe in candidates(study, method).items():
            yield _training(study, name, TUNING_SEED, lambda *_, r=recipe: r, which="dev")
    for name, recipe in candidates(study, WEIGHTS).items():
        yield _cut(study, name, TUNING_SEED, recipe.objective, which="dev")
    for name, recipe in candidates(study, ROUNDS).items():
        measure = partial(_round_candidate, name=name, train=recipe.train)
        yield _cell(study, name, TUNING_SEED, measure, tuned_by=("cut",))


def _methods(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for method in METHODS:
        recipe = partial(tuned, method=method)
        yield _training(study, f"methods/{seed}/{method}", seed, recipe, tuned_by=(method,))


def _ablations(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for name in ABLATIONS:
        yield _cut(study, f"ablations/{seed}/{name}", seed, {"without": name})

    def hindsight(study: StudyKeys, results: Results) -> Recipe:
        return Recipe({"name": "hindsight"}, tuned(study, results, method="cut").train)

    yield _training(study, f"ablations/{seed}/{LIKE_CUT}", seed, hindsight, tuned_by=("cut",))


def _judgments(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for method, quality in itertools.product(("cut", "ilf_mle"), QUALITIES):
        measure = partial(_of_quality, method=method, quality=quality)
        yield _cell(study, f"judgments/{seed}/{method}-{quality}", seed, measure, tuned_by=(method,))


def _weights(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for contrast, lam in ((contrast, lam) for contrast, lams in LAMBDAS.items() for lam in lams):
        yield _cut(study, f"weights/{seed}/{contrast}-lam{lam:g}", seed, {"contrast": contrast, "lam": lam})
    for gamma, alpha in GAMMAS_ALPHAS:
        yield _cut(study, f"weights/{seed}/gamma{gamma:g}-alpha{alpha:g}", seed, {"gamma": gamma, "alpha": alpha})
    recipe = partial(tuned, method=WEIGHTS)
    yield _training(study, f"weights/{seed}/{WEIGHTS}", seed, recipe, tuned_by=("cut", WEIGHTS))
    for gamma, alpha, lam in TOGETHER:
        name = f"weights/{seed}/gamma{gamma:g}-alpha{alpha:g}-lam{lam:g}"
        yield _cut(study, name, seed, {"gamma": gamma, "alpha": alpha, "lam": lam})
    yield _cut(study, f"weights/{seed}/unread-praise", seed, {"fake_judgment": UNREAD_PRAISE})
    for lam in UNREAD_LAMBDAS:
        objective = {"fake_judgment": UNREAD_PRAISE, "lam": lam}
        yield _cut(study, f"weights/{seed}/unread-praise-lam{lam:g}", seed, objective)


def _cut(study: StudyKeys, name: str, seed: int, objective: Mapping[str, Any], which: str = "heldout") -> Cell:
    """CUT as it was tuned, with some keys set otherwise."""
    return _training(study, name, seed, partial(like_cut, objective=objective), tuned_by=("cut",), which=which)


def _training(
    study: StudyKeys, name: str, seed: int, recipe: Callable[[StudyKeys, Results], Recipe], *,
    tuned_by: Sequence[str] = (), which: str = "heldout",
) -> Cell:  # fmt: skip
    """Train the base model on the laboratory's triplets and measure it."""

    def measure(lab: Lab, results: Results) -> Numbers:
        return _trained(lab, name, recipe(lab.cfg.study, results), which=which)

    return _cell(study, name, seed, measure, tuned_by=tuned_by)


def _trained(lab: Lab, name: str, recipe: Recipe, triplets: str = "triplets.jsonl", which: str = "heldout") -> Numbers:
    run = name.replace("/", "_")
    model = lab.train(run, lab.base, lab.folder / triplets, recipe.objective, recipe.train)
    numbers = lab.measure(model, which)
    discard(lab.folder / run)
    return {"recipe": _keys(recipe), **numbers}


def _of_quality(lab: Lab, results: Results, *, method: str, quality: str) -> Numbers:
    """The same samples with judgments of one quality, and for ILF refinements by these."""
    name, refined_right = f"{method}-{quality}", {}
    samples = lab.sample(lab.base, "samples", lab.cfg.study.samples)
    rows = lab.judged(samples, quality)
    if method == "ilf_mle":
        rows = lab.refined(lab.base, rows)
        refined_right = _refined_right(samples, rows)
    write_rows(lab.folder / f"{name}.jsonl", rows)
    recipe = tuned(lab.cfg.study, results, method=method)
    return {**refined_right, **_trained(lab, f"judgments/{lab.seed}/{name}", recipe, f"{name}.jsonl")}


def _cell(
    study: StudyKeys, name: str, seed: int, measure: Callable[[Lab, Results], Numbers], *,
    tuned_by: Sequence[str] = (), needs: Sequence[str] = (),
) -> Cell:  # fmt: skip
    """A cell on the laboratory's samples, and on other cells it needs, that goes by the settings of some methods."""
    tried = tuple(candidate for method in tuned_by for candidate in candidates(study, method))
    return Cell(name, seed, measure, (f"samples/{seed}", *needs), Lab, tried)


def _keys(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {group: dict(keys) for group, keys in vars(recipe).items()}


# ---- rounds, Align-P, and detection ----------------------------------------------------------------------------------


def _rounds(study: StudyKeys, seed: int) -> Iterator[Cell]:
    def cell(name: str, measure: Callable[[Lab, Results], Numbers], **keys: Any) -> Cell:
        return _cell(study, f"rounds/{seed}/{name}", seed, measure, **keys)

    yield cell("online", partial(_in_parts, name="round"), tuned_by=("cut", ROUNDS))
    yield cell("online_like_cut", partial(_in_parts, name="like_cut-round", like="cut"), tuned_by=("cut",))
    yield cell("stale", partial(_in_parts, name="stale-round", fresh=False), tuned_by=("cut", ROUNDS))
    yield cell("offline", _offline, tuned_by=("cut",))
    yield cell("offline_matched", _offline_matched, tuned_by=("cut",), needs=(f"rounds/{seed}/online",))


def _round_candidate(lab: Lab, results: Results, *, name: str, train: Mapping[str, Any]) -> Numbers:
    """All rounds with one learning rate and number of epochs, for the tuning."""
    run, recipe = f"{name.replace('/', '_')}-", Recipe(tuned(lab.cfg.study, results, method="cut").objective, train)
    *_, (model, _) = _in_rounds(lab, run, recipe)
    numbers = lab.measure(model, "dev")
    _discard_rounds(lab, run)
    return {"recipe": _keys(recipe), **numbers}


def _in_parts(lab: Lab, results: Results, *, name: str, like: str = ROUNDS, fresh: bool = True) -> Numbers:
    """Rounds, tuned as `like` is, each on judged samples of the model that the last one left or, stale, of the base."""
    study = lab.cfg.study
    objective = tuned(study, results, method="cut").objective
    recipe = Recipe(objective, tuned(study, results, method=like).train)
    accuracy, right = [], []
    for model, samples in _in_rounds(lab, name, recipe, fresh=fresh):
        accuracy.append(lab.measure(model))
        right.append(sum(s.right for s in samples) / len(samples))
    _discard_rounds(lab, name)
    align_n = study.round_samples * (study.rounds - sum(right))
    return {"recipe": _keys(recipe), **accuracy[-1], "rounds": accuracy, "right": right, "align_n": align_n}


def _in_rounds(
    lab: Lab, name: str, recipe: Recipe, *, fresh: bool = True
) -> Iterator[tuple[Path, Sequence[Sample]]]:
    """The model that each round leaves, and the samples that it was trained on."""
    model = lab.base
    for number in range(1, lab.cfg.study.rounds + 1):
        run = f"{name}{number}"
        samples = lab.sample(model if fresh else lab.base, run, lab.cfg.study.round_samples)
        write_rows(lab.folder / f"{run}.jsonl", lab.judged(samples))
        model = lab.train(run, model, lab.folder / f"{run}.jsonl", recipe.objective, recipe.train)
        yield model, samples


def _discard_rounds(lab: Lab, name: str) -> None:
    for number in range(1, lab.cfg.study.rounds + 1):
        discard(lab.folder / f"{name}{number}")


def _offline(lab: Lab, results: Results) -> Numbers:
    """One training on as many judged samples of the base model."""
    study = lab.cfg.study
    samples = lab.sample(lab.base, "offline", study.rounds * study.round_samples)
    return _at_once(lab, results, "offline", samples)


def _offline_matched(lab: Lab, results: Results) -> Numbers:
    """The same on as many samples of each kind as the rounds had, whose models are wrong less often."""
    count, align_n = lab.cfg.study.rounds * lab.cfg.study.round_samples, results[f"rounds/{lab.seed}/online"]["align_n"]
    pool = lab.sample(lab.base, "pool", 4 * count)  # enough, where a fourth are right
    wrong = [sample for sample in pool if not sample.right][: round(align_n)]
    right = [sample for sample in pool if sample.right][: count - round(align_n)]
    if len(wrong) + len(right) < count:
        found = f"{len(wrong)} wrong and {len(right)} right"
        raise TrainingFailed(f"{count} samples are wanted: of {len(pool)} of the base model there are {found} to take")
    return _at_once(lab, results, "offline_matched", [*wrong, *right])


def _at_once(lab: Lab, results: Results, name: str, samples: Sequence[Sample]) -> Numbers:
    write_rows(lab.folder / f"{name}.jsonl", lab.judged(samples))
    recipe = tuned(lab.cfg.study, results, method="cut")
    numbers = _trained(lab, f"rounds/{lab.seed}/{name}", recipe, f"{name}.jsonl")
    return {**numbers, "align_n": sum(not sample.right for sample in samples)}


def _align_p(study: StudyKeys, seed: int) -> Iterator[Cell]:
    for ratio in RATIOS:
        measure = partial(_of_ratio, ratio=ratio)
        yield _cell(study, f"align_p/{seed}/ratio{ratio:g}", seed, measure, tuned_by=("cut",))


def _of_ratio(lab: Lab, results: Results, *, ratio: float) -> Numbers:
    """CUT on the same Align-N samples with `ratio` times as many Align-P ones, in as many steps as on all samples."""
    study, best = lab.cfg.study, tuned(lab.cfg.study, results, method="cut")
    rows = lab.judged(lab.sample(lab.base, "samples", study.samples))
    positive = [row for row in rows if row["judgment"] is None]
    negative = [row for row in rows if row["judgment"] is not None][: max(1, int(len(positive) / max(RATIOS)))]
    write_rows(lab.folder / f"ratio{ratio:g}.jsonl", [*negative, *positive[: round(ratio * len(negative))]])
    steps = math.ceil(best.train["epochs"] * study.samples / lab.cfg.train.global_batch_size)
    recipe = Recipe(best.objective, {"lr": best.train["lr"], "max_steps": steps})
    numbers = _trained(lab, f"align_p/{lab.seed}/ratio{ratio:g}", recipe, f"ratio{ratio:g}.jsonl")
    return {**numbers, "align_n": len(negative)}


def _detection(study: StudyKeys, seed: int) -> Iterator[Cell]:
    yield _cell(study, f"detection/{seed}", seed, _detected)


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
    """The cells of the parts and rows that `study.parts` names, all without; and those that they need.

    Raises:
        ConfigError: there is no part or row of that name.
    """
    cells = [*lab_cells(cfg.study), *real_cells(cfg.study)]
    of = {cell.name: _part_and_row(cell.name) for cell in cells}
    parts, rows = (dict.fromkeys(names) for names in zip(*of.values()))
    for name in cfg.study.parts:
        remedy = f"must be one of {', '.join(parts)}, or a row of one such as methods/cut"
        require(name in parts or name in rows, "study.parts", name, remedy)
    wanted = {name for name, found in of.items() if not cfg.study.parts or {*found} & {*cfg.study.parts}}
    by_name = {cell.name: cell for cell in cells}
    waiting = list(wanted)
    while waiting:
        new = set(by_name[waiting.pop()].waits_for) - wanted
        wanted |= new
        waiting += new
    return [cell for cell in cells if cell.name in wanted]


def _part_and_row(cell: str) -> tuple[str, str]:
    """Of `methods/0/cut` ("methods", "methods/cut")."""
    part, _, *what = cell.split("/")
    return part, "/".join((part, *what))
