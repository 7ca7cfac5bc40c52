"""The job of launch/benchmark.py: the cases of the chosen suites, one after the other, within a budget of time."""

from __future__ import annotations

import dataclasses
import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cut_dist.benchmark import head_suite, kernel_suite, report, step_suite
from cut_dist.benchmark.config import BenchmarkJobConfig
from cut_dist.benchmark.machine import describe
from cut_dist.benchmark.summary import summarise
from cut_dist.benchmark.timing import OURS, Case, race
from cut_dist.config import ConfigError, ObjectiveConfig
from cut_dist.config_check import require
from cut_dist.model.load import choose_dtype

log = logging.getLogger(__name__)

SUITES = {"kernel": kernel_suite, "head": head_suite, "step": step_suite}


def benchmark(cfg: BenchmarkJobConfig, console: Console | None = None) -> int:
    """Measure, print tables, write the JSON and the figure.

    Returns:
        0, or 1 where a contender of this project was wrong or failed, or a case could not be made.

    Raises:
        ConfigError: there is no such device here, or the objective is not the one that is measured.
    """
    _require_cut(cfg.objective)
    torch._logging.set_logs(dynamo=logging.ERROR)  # graph breaks of what is compiled are not news here
    device = choose_device(cfg.device)
    dtype = choose_dtype(cfg.train.precision, device)
    suites = list(SUITES) if cfg.suite == "all" else [cfg.suite]
    makers = [(suite, *maker) for suite in suites for maker in SUITES[suite].cases(cfg, device, dtype)]
    machine = describe(device)  # first: its load is the one before the benchmark
    ends = time.perf_counter() + 60 * cfg.budget_minutes
    console, cases, not_made = console or Console(), [], []
    for i, (suite, sizes, make) in enumerate(makers):
        share = (ends - time.perf_counter()) / (len(makers) - i)
        try:
            cases.append(run_case(make, cfg, device, share))
            report.show(cases[-1], console)
        except Exception as error:  # the cases after it may still be worth their time
            not_made.append({"suite": suite, "sizes": sizes, "status": f"{type(error).__name__}: {error}"[:200]})
            log.exception("suite=%s, %s: not measured", suite, sizes)
        if cfg.output is not None:  # after every case: what is measured outlives whatever stops the rest
            target = Path(f"docs/results/benchmark_{cfg.suite}_{device.type}" if cfg.output == "auto" else cfg.output)
            measured = {"machine": machine, "settings": settings(cfg, dtype), "cases": cases, "not_made": not_made}
            report.write(measured, target)
            log.info("%s.json written", target)
    return int(bool(not_made) or not all(map(ours_hold, cases)))


def _require_cut(objective: ObjectiveConfig) -> None:
    """λ, α, γ and the contrast are measured as they are set; what else changes CUT is not."""
    for key in ("name", "lam_instruction", "floor", "without"):
        value, only = getattr(objective, key), getattr(ObjectiveConfig(), key)
        require(value == only, f"objective.{key}", value, f"the benchmark measures CUT with {key}={only} only")


def run_case(make: Callable[[], Case], cfg: BenchmarkJobConfig, device: torch.device, seconds: float) -> dict[str, Any]:
    """Make a case, let its contenders race and summarise it; what it held is given back."""
    try:
        case = make()
        results, floor = race(case, device, repetitions=cfg.repetitions, seconds=seconds)
        return summarise(case, results, floor, device)
    finally:
        case = results = None
        # Without it the second case's sizes would be compiled as dynamic ones, which is slower.
        torch.compiler.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one.

    Raises:
        ConfigError: for a GPU that torch does not see.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device=cuda: torch sees no GPU here; use device=cpu.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def settings(cfg: BenchmarkJobConfig, dtype: torch.dtype) -> dict[str, Any]:
    """What was asked for, without paths."""
    kept = {name: dataclasses.asdict(getattr(cfg, name)) for name in ("objective", *SUITES)}
    kept["step"]["triplets"] = cfg.step.triplets and Path(cfg.step.triplets).name
    return kept | {
        "suite": cfg.suite,
        "seed": cfg.seed,
        "dtype": str(dtype).removeprefix("torch."),
        "repetitions": cfg.repetitions,
        "budget_minutes": cfg.budget_minutes,
    }


def ours_hold(summary: dict[str, Any]) -> bool:
    """Whether every contender of this project gave what it should and was timed."""
    return all(row["status"] == "ok" for row in summary["contenders"] if row["name"].startswith(OURS))
