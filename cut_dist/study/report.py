"""What the study found: numbers.json, report.html and a figure for each part, from the cells."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cut_dist import charts, durable
from cut_dist.lineage import redact
from cut_dist.run_folder import IDENTITY_FILE
from cut_dist.study import page
from cut_dist.study.cells import FAILED, MACHINE, REAL, TUNING_SEED, Cell, Results
from cut_dist.study.config import RealKeys
from cut_dist.study.real_cells import PART
from cut_dist.study.sections import sections
from cut_dist.study.statistics import Interval, interval

if TYPE_CHECKING:
    from cut_dist.study.config import StudyConfig

Table = dict[str, dict[str, Interval]]  # what → measure → mean over seeds


def write_report(cfg: StudyConfig, cells: Sequence[Cell], results: Results) -> Path:
    """Gather all that is done by part and write all files of the report; of `cells` it says which are missing.

    Returns:
        The folder that they lie in.
    """
    folder = Path(cfg.study.results or Path(cfg.study.root) / "results")
    folder.mkdir(parents=True, exist_ok=True)
    done = dict(results)
    tables, settings = gather(done), _settings(Path(cfg.study.root))
    claimed = settings[REAL]["study"]["real"] if REAL in settings else {}
    known = {each.name for each in dataclasses.fields(RealKeys)}  # a folder may be of another version
    real = dataclasses.replace(cfg.study.real, **{key: value for key, value in claimed.items() if key in known})
    numbers = {
        "machines": _machines(done),
        "settings": settings,
        "command": redact(sys.argv),
        "parts": {
            part: {what: {k: dataclasses.asdict(v) for k, v in row.items()} for what, row in table.items()}
            for part, table in tables.items()
        },
        "tuned": _recipes(done),
        "failed": {name: cell[FAILED] for name, cell in done.items() if FAILED in cell},
        "missing": [cell.name for cell in cells if cell.name not in done],
    }  # fmt: skip
    durable.replace_file(folder / "numbers.json", json.dumps(_plain(numbers), indent=1).encode())
    found = sections(tables, real)
    figures = page.figures(found) if charts.available() else {}
    for name, svg in figures.items():
        durable.replace_file(folder / f"{name}.svg", page.standalone(svg).encode())
    durable.replace_file(folder / "report.html", page.render(found, figures, numbers).encode())
    return folder


def gather(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Table]:
    """part → what → measure → mean over seeds, of cells named `<part>/<seed>/<what>`; the tuning is left out.

    A cell that failed counts in none; its row says how many seeds there are.
    """
    found: dict[str, dict[str, dict[str, dict[int, float]]]] = {}
    for name, numbers in cells.items():
        part, seed, *what = name.split("/")
        if part == "tuning" or seed == str(TUNING_SEED):
            continue
        for measure, value in _flat(numbers).items():
            row = found.setdefault(part, {}).setdefault("/".join(what) or part, {})
            row.setdefault(measure, {})[int(seed)] = value
    return {
        part: {what: {m: interval([*of.values()], [*of]) for m, of in row.items()} for what, row in table.items()}
        for part, table in found.items()
    }


def _settings(root: Path) -> dict[str, Any]:
    """What the cells were made with, as their folder says: the command at hand may run other parts with other keys."""
    claims = {"laboratory": root / IDENTITY_FILE, REAL: root / REAL / IDENTITY_FILE}
    return {what: json.loads(path.read_text()) for what, path in claims.items() if path.exists()}


def _recipes(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of each method, the real model's methods by name of the part too."""
    found = {}
    for name, cell in cells.items():
        part, seed, *what = name.split("/")
        if part in ("methods", PART) and seed != str(TUNING_SEED) and "recipe" in cell:
            found[" ".join(what if part == "methods" else [part, *what])] = cell["recipe"]
    return found


def _machines(cells: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the cells were measured on, with how many of each part; several machines may share a study."""
    parts: dict[str, Counter[str]] = {}
    for name, numbers in cells.items():
        parts.setdefault(json.dumps(numbers.get(MACHINE)), Counter())[name.split("/")[0]] += 1
    return [{MACHINE: json.loads(machine), "cells": dict(count)} for machine, count in parts.items()]


def _flat(numbers: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number of a cell by its path: "rounds.2.accuracy"; a curve's points by their λ: "fake.1.5.precision"."""
    flat = {}
    for key, value in numbers.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and key not in ("recipe", MACHINE):
            flat |= _flat(value, f"{name}.")
        elif isinstance(value, list):
            for place, item in enumerate(value, 1):
                here = f"{name}.{item['lam']:g}" if isinstance(item, Mapping) and "lam" in item else f"{name}.{place}"
                flat |= _flat(item, f"{here}.") if isinstance(item, Mapping) else {here: float(item)}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = float(value)
    return flat


def _plain(value: Any) -> Any:
    """With null for what is not finite, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
