"""The cells of the part `smollm2`: a real model before and after, by the methods side by side, CUT in rounds.

smollm2/<seed>/samples              the judged answers that all methods train on
smollm2/<seed>/base                 the model as it comes
smollm2/<seed>/{sft,ilf_dpo,cut}    after one training, at the learning rate that was best for the method
smollm2/<seed>/cut_round<n>         CUT once more, on judged answers of the model that the last round left

The learning rates are tried on instructions and answers of `TUNING_SEED`, and measured on other training instructions:
nothing that is held out, and no held-out topic or wording, has a part in the choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from cut_dist.online.instructions import HELDOUT
from cut_dist.study.cells import TUNING_SEED, Cell, Numbers, Results
from cut_dist.study.real import RealLab
from cut_dist.study.trainer import TrainingFailed, discard

if TYPE_CHECKING:
    from cut_dist.study.config import StudyKeys

PART = "smollm2"
METHODS = ("sft", "ilf_dpo", "cut")
_DEV = 2  # the "round" of TUNING_SEED that is measured on; it trains on round 1


def real_cells(study: StudyKeys) -> Iterator[Cell]:
    """The cells of the part, in the order in which they are best made."""
    for seed in (TUNING_SEED, *range(study.seeds)):
        yield _cell(seed, "samples", _samples)
    for method, lr in itertools.product(METHODS, study.real.lrs):
        measure = partial(_tried, method=method, lr=lr)
        yield _cell(TUNING_SEED, _candidate(method, lr), measure, _name(TUNING_SEED, "samples"))
    for seed in range(study.seeds):
        yield _cell(seed, "base", _base)
        for method in METHODS:
            tried = (_name(TUNING_SEED, _candidate(method, lr)) for lr in study.real.lrs)
            yield _cell(seed, method, partial(_method, method=method), _name(seed, "samples"), candidates=(*tried,))
    for number in range(2, study.real.rounds + 1):  # last, so that the comparison is whole before them
        for seed in range(study.seeds):
            measure = partial(_round, number=number)
            yield _cell(seed, _cut_run(number), measure, _name(seed, _cut_run(number - 1)))


def _name(seed: int, what: str) -> str:
    return f"{PART}/{seed}/{what}"


def _cell(
    seed: int, what: str, measure: Callable[[Any, Results], Numbers], *needs: str, candidates: tuple[str, ...] = ()
) -> Cell:
    return Cell(_name(seed, what), seed, measure, needs, RealLab, candidates)


def _samples(lab: RealLab, results: Results) -> Numbers:
    return {**lab.sample(1, lab.base), **lab.refine()}


def _base(lab: RealLab, results: Results) -> Numbers:
    return lab.measure(lab.base, "base")


def _tried(lab: RealLab, results: Results, *, method: str, lr: float) -> Numbers:
    return _trained(lab, _candidate(method, lr), method, lr, which=_DEV)


def _method(lab: RealLab, results: Results, *, method: str) -> Numbers:
    keep = method == "cut" and lab.cfg.study.real.rounds > 1
    return _trained(lab, method, method, tuned_lr(lab.cfg.study, results, method), keep=keep)


def _round(lab: RealLab, results: Results, *, number: int) -> Numbers:
    """One more round of CUT. The rounds before are found where their cells left them."""
    lr, model = tuned_lr(lab.cfg.study, results, "cut"), lab.base
    for each in range(1, number + 1):
        sampled = lab.sample(each, model)
        model = lab.train(_cut_run(each), model, lab.round(each).triplets, _objective(lab, "cut"), lr)
    numbers = {**lab.measure(model, _cut_run(number)), "right": sampled["right"]}
    if number == lab.cfg.study.real.rounds:
        for each in range(number, 0, -1):
            discard(lab.folder / _cut_run(each))
    return {"recipe": _recipe(lab, "cut", lr), **numbers}


def _trained(lab: RealLab, run: str, method: str, lr: float, *, which: int = HELDOUT, keep: bool = False) -> Numbers:
    """Train the base model on the samples and measure it."""
    triplets = lab.refined() if method == "ilf_dpo" else lab.round(1).triplets
    model = lab.train(run, lab.base, triplets, _objective(lab, method), lr)
    numbers = lab.measure(model, run, which)
    if not keep:
        discard(lab.folder / run)
    return {"recipe": _recipe(lab, method, lr), **numbers}


def tuned_lr(study: StudyKeys, results: Results, method: str) -> float:
    """The learning rate with the best strict accuracy at tuning; of equals the first.

    Raises:
        TrainingFailed: none could be measured.
    """
    tried = {lr: results[_name(TUNING_SEED, _candidate(method, lr))].get("strict", -1.0) for lr in study.real.lrs}
    best = max(tried, key=tried.get)
    if tried[best] < 0:
        raise TrainingFailed(f"no learning rate of {method} could be measured, so it has none")
    return best


def _objective(lab: RealLab, method: str) -> dict[str, Any]:
    real = lab.cfg.study.real
    return {"name": method} | ({"lam": real.lam, "gamma": real.gamma} if method == "cut" else {})


def _recipe(lab: RealLab, method: str, lr: float) -> dict[str, Any]:
    return {"objective": _objective(lab, method), "train": {"lr": lr, "max_steps": lab.cfg.study.real.steps}}


def _candidate(method: str, lr: float) -> str:
    return f"{method}-lr{lr:g}"


def _cut_run(number: int) -> str:
    return "cut" if number == 1 else f"cut_round{number}"
