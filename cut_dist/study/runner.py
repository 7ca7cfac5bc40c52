"""The study under way: processes that take one cell after the other until all are done.

<root>/labs/seed<n>/    a laboratory: corpus, base model, triplets, trainings under way
<root>/cells/           a file for each cell that is done; a cell is locked while a process is at it
<results>/              report, figures and numbers

Started again, what is done stays done. Several machines may work on one folder that they share.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
import multiprocessing
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from filelock import FileLock, Timeout

from cut_dist.benchmark.machine import describe
from cut_dist.config_check import ConfigError, require
from cut_dist.data.triplets import BadRowsError, NoRowsLeft
from cut_dist.generators.base import ModelOutputError
from cut_dist.model.resolve import ModelNotFound, resolve_model
from cut_dist.process import UNFINISHED, StopSignal, die_with_parent
from cut_dist.run_folder import check_same_config, write_config
from cut_dist.study.cells import DESIGN, FAILED, MACHINE, REAL, Cell, Numbers, Results
from cut_dist.study.config import StudyConfig
from cut_dist.study.parts import study_cells
from cut_dist.study.real import RealLab
from cut_dist.study.report import write_report
from cut_dist.study.trainer import Stopped, Trainer, TrainingFailed
from cut_dist.wording import UserError

log = logging.getLogger(__name__)

_LOOK_S, _SAY_S = 1.0, 30.0
_TELLING = 10  # cells, after which their mean time says something of the rest's
_FREE = ("root", "results", "workers", "parts", "seeds")  # keys that change no cell
# A training that comes to nothing is a result, a defect or what the user can mend is none.
OUTCOMES = (TrainingFailed, NoRowsLeft, BadRowsError, ModelOutputError)


def run_study(cfg: StudyConfig) -> int:
    """Make all cells with `study.workers` processes, then the report.

    Returns:
        0 when all is done; 1 where cells are left that could not be made; 75 where it was stopped.

    Raises:
        ConfigError: scipy or the model of `study.real` is missing, `study.parts` names no part, a folder can't be
            written, or a key is set that the study sets itself.
        RunFolderError: the folder holds a study with other settings.
    """
    if importlib.util.find_spec("scipy") is None:  # at the start, not after hours
        raise ConfigError("The study's intervals need scipy: pip install 'cut-dist[study]'.")
    _refuse_what_cells_set(cfg)
    cells, results = study_cells(cfg), results_of(cfg)
    left = _left(cells, results)
    if any(cell.laboratory is RealLab for cell in left):
        _require_model(cfg)
    root = Path(cfg.study.root)
    for key, folder in (("root", root), ("results", Path(cfg.study.results))):
        _make(key, folder)
    with FileLock(root / "claim.lock"):  # machines that share the folder come here together
        _claim(cfg, cells)
    log.info("%d of %d cells in %s to make; workers: %d", len(left), len(cells), root, cfg.study.workers)
    if left:
        stop = StopSignal(interrupt=True)
        threads = max(1, len(os.sched_getaffinity(0)) // cfg.study.workers)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of the workers, which begin as new interpreters
        if cfg.study.workers > 1:
            os.environ.pop("MASTER_PORT", None)  # a scheduler's; each worker takes one of its own
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=_work, args=(cfg,)) for _ in range(cfg.study.workers)]
        for worker in workers:
            worker.start()
        _watch(workers, cells, results, stop)
        if stop.asked:
            log.info("stopped as asked; the same command goes on")
            return UNFINISHED
    left, bad = _left(cells, results), [c.name for c in cells if FAILED in results.get(c.name, {})]
    for name in bad:
        log.warning("%s has no numbers: %s", name, results[name][FAILED])
    if left:
        text = "%d of %d cells could not be made; the lines above say why. The same command goes on"
        log.error(text, len(left), len(cells))
    with FileLock(root / "report.lock"):
        log.info("report of what is done written to %s", write_report(cfg, cells, results))
    return 1 if left else 0


def _refuse_what_cells_set(cfg: StudyConfig) -> None:
    """Each cell has an objective and a number of steps of its own; the laboratory makes its base model anew."""
    objective, steps = cfg.objective, cfg.train.max_steps
    require(objective.name == "cut", "objective", objective.name, "must be cut; cells set each method's own")
    require(objective.without is None, "objective.without", objective.without, "is set by the part `ablations`")
    require(steps is None, "train.max_steps", steps, "must be null; +experiment=study_smoke is the study in small")
    require(bool(cfg.model.random_init), "model", cfg.model.name_or_path, "must have random_init, as model=lab has")


def _make(key: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"study.{key}={folder}: can't be written to: {error.strerror}. Choose another.") from error


def _require_model(cfg: StudyConfig) -> None:
    """Say at the start, not after hours, that the part of the real model has none."""
    try:
        resolve_model(cfg.study.real.model)
    except ModelNotFound as error:
        remedy = "Here the key is study.real.model. Or run without it: list the other parts in study.parts."
        raise ConfigError(f"study.real.model: {error} {remedy}") from error


def _claim(cfg: StudyConfig, cells: Sequence[Cell]) -> None:
    """Refuse a folder whose cells were made with other settings; more seeds and other parts may be added.

    The settings of the laboratory and those of the real model do not touch each other's cells.
    """
    study = {key: value for key, value in dataclasses.asdict(cfg.study).items() if key not in _FREE}
    real = study.pop("real")
    shared = {name: dataclasses.asdict(getattr(cfg, name)) for name in ("model", "objective", "train")}
    study["design"] = DESIGN
    root, claims = Path(cfg.study.root), []
    if any(cell.laboratory is not RealLab for cell in cells):
        claims.append((root, {"study": study, **shared}))
    if any(cell.laboratory is RealLab for cell in cells):
        claims.append((root / REAL, {"study": {"real": real}, "train": shared["train"]}))
    for folder, identity in claims:
        folder.mkdir(parents=True, exist_ok=True)
        check_same_config(folder, identity, "choose another study.root")
    for folder, identity in claims:
        write_config(folder, dataclasses.asdict(cfg), identity)


def results_of(cfg: StudyConfig) -> Results:
    return Results(Path(cfg.study.root) / "cells")


def _left(cells: Sequence[Cell], results: Results) -> list[Cell]:
    return [cell for cell in cells if cell.name not in results]


def _watch(workers: Sequence[SpawnProcess], cells: Sequence[Cell], results: Results, stop: StopSignal) -> None:
    """Wait for the workers, say how far they are, hand on a wish to stop."""
    said = time.monotonic()
    at_start = len(_left(cells, results))
    began, passed_on = said, False
    while any(worker.is_alive() for worker in workers):
        time.sleep(_LOOK_S)
        if stop.asked and not passed_on:
            passed_on = True
            for worker in workers:
                worker.terminate()
        if time.monotonic() - said > _SAY_S:
            said, left = time.monotonic(), len(_left(cells, results))
            made = at_start - left
            rest = f", about {left * (said - began) / made / 60:.0f} min left" if made >= _TELLING else ""
            log.info("%d of %d cells%s", len(cells) - left, len(cells), rest)


def _work(cfg: StudyConfig) -> None:
    """One worker's life: the next cell that is due and not taken, until none is left."""
    die_with_parent()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("cut_dist.study").setLevel(logging.INFO)
    cells, results = study_cells(cfg), results_of(cfg)
    try:
        with suppress(Stopped), Trainer(cfg.run.timeout_minutes) as trainer:
            _machine()  # of the code that was loaded, whatever is committed while cells are made
            while (left := _left(cells, results)) and not trainer.stopping:
                due = (cell for cell in left if all(name in results for name in cell.waits_for))
                if not any(_take(cfg, cell, results, trainer) for cell in due):
                    time.sleep(_LOOK_S)
    except UserError as error:
        log.error("%s", error)
        raise SystemExit(1) from error


@functools.cache
def _machine() -> dict[str, Any]:
    """What this process measures on. Without the load, which would be another for each cell."""
    described = describe(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return {key: value for key, value in described.items() if key != "load_before"}


def _without_its_needs(cell: Cell, results: Results) -> Numbers | None:
    """Why a cell can't be made whose base model, samples or rounds failed."""
    failed = [need for need in cell.needs if FAILED in results[need]]
    return {FAILED: f"it needs {failed[0]}, which failed"} if failed else None


def _take(cfg: StudyConfig, cell: Cell, results: Results, trainer: Trainer) -> bool:
    """Make a cell, unless another process is at it or has made it by now."""
    path = results.path(cell.name).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, blocking=False):
            if cell.name in results:
                return False
            began = time.monotonic()
            lab = cell.laboratory(cfg, cell.seed, Path(cfg.study.root) / "labs", trainer)
            try:
                numbers = _without_its_needs(cell, results) or cell.measure(lab, results)
            except OUTCOMES as error:
                numbers = {FAILED: str(error)}
            results.write(cell.name, {**numbers, MACHINE: _machine()})
            log.info("%s: %.0f s", cell.name, time.monotonic() - began)
    except Timeout:
        return False
    return True
