"""What the study found: cells.jsonl, numbers.json, report.html and a figure for each part, from the cells."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cut_dist import charts, durable
from cut_dist.lineage import redact
from cut_dist.run_folder import IDENTITY_FILE
from cut_dist.study import page
from cut_dist.study.cells import FAILED, LABORATORY, MACHINE, REAL, TUNING_SEED, Cell, Results
from cut_dist.study.config import RealKeys
from cut_dist.study.real_cells import PART
from cut_dist.study.sections import sections
from cut_dist.study.statistics import Interval, interval
from cut_dist.study.tuning import ROUNDS, WEIGHTS, score

if TYPE_CHECKING:
    from cut_dist.study.config import StudyConfig

log = logging.getLogger(__name__)

CELLS = "cells.jsonl"  # a line for each cell, {"cell": its name, and what it measured}
Table = dict[str, dict[str, Interval]]  # what → measure → mean over seeds


def write_report(cfg: StudyConfig, cells: Sequence[Cell], results: Results) -> Path:
    """Gather all that is done by part and write all files of the report; of `cells` it says which are missing.

    What a report in that folder has of an earlier study with the same settings, and this one has not at all, stays in
    it: the parts on the laboratory's base models, which hang together, `sizes`, or `smollm2`.

    Returns:
        The folder that they lie in.
    """
    folder = Path(cfg.study.results)
    folder.mkdir(parents=True, exist_ok=True)
    done, settings = _with_earlier(folder, dict(results), _settings(Path(cfg.study.root)))
    tables = gather(done)
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
        "tuning": _tuning(done),
        "failed": {name: cell[FAILED] for name, cell in done.items() if FAILED in cell},
        "missing": [cell.name for cell in cells if cell.name not in done],
    }  # fmt: skip
    durable.replace_file(folder / "numbers.json", json.dumps(_plain(numbers), indent=1).encode())
    lines = (json.dumps({"cell": name, **_plain(cell)}) + "\n" for name, cell in sorted(done.items()))
    durable.replace_file(folder / CELLS, "".join(lines).encode())
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


def _with_earlier(folder: Path, done: dict[str, Any], settings: dict[str, Any]) -> tuple[dict, dict]:
    """Cells and settings, together with those that only the report of before has."""
    try:
        earlier = json.loads((folder / "numbers.json").read_text())["settings"]
        lines = [json.loads(line) for line in (folder / CELLS).read_text().splitlines()]
    except FileNotFoundError:
        return done, settings
    own, names, kept = {_whole(name) for name in done}, [line.pop("cell") for line in lines], {}
    for name, line in zip(names, lines):
        claim = REAL if _part(name) == PART else LABORATORY
        if claim in earlier and _whole(name) not in own and settings.get(claim, earlier[claim]) == earlier[claim]:
            settings[claim], kept[name] = earlier[claim], line
    if gone := [name for name in names if name not in kept and name not in done]:
        log.warning("%s: %d cells of another study leave the report, such as %s", folder, len(gone), gone[0])
    return {**kept, **done}, settings


def _part(cell: str) -> str:
    return cell.split("/")[0]


def _whole(cell: str) -> str:
    """Which cells hang together: they are of the same models."""
    return _part(cell) if _part(cell) in ("sizes", PART) else LABORATORY


def _settings(root: Path) -> dict[str, Any]:
    """What the cells were made with, as their folder says: the command at hand may run other parts with other keys."""
    claims = {LABORATORY: root / IDENTITY_FILE, REAL: root / REAL / IDENTITY_FILE}
    return {what: json.loads(path.read_text()) for what, path in claims.items() if path.exists()}


def _recipes(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of each method, the real model's methods by name of the part too."""
    found, others = {}, {("rounds", "online"): ROUNDS, ("weights", WEIGHTS): WEIGHTS}
    for name, cell in cells.items():
        part, seed, *what = name.split("/")
        if seed == str(TUNING_SEED) or "recipe" not in cell:
            continue
        if part == "methods":
            found[what[0]] = cell["recipe"]
        elif part == PART:
            found[f"{part} {what[0]}"] = cell["recipe"]
        elif (other := others.get((part, *what))) is not None:
            found[other] = cell["recipe"]
    return found


def _tuning(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Of each method all candidates with their scores, the best first; those that failed have none."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, cell in cells.items():
        part, seed, what = (name + "/").split("/")[:3]
        method, *settings = re.split("-lr|-gamma", what)
        if seed != str(TUNING_SEED) or not settings:
            continue
        value = cell.get("strict") if part == PART else score(cell)
        keys = {**cell.get("recipe", {}).get("objective", {}), **cell.get("recipe", {}).get("train", {})}
        row = {"candidate": what, "score": None if FAILED in cell else value, **keys}
        found.setdefault(f"{part} {method}" if part == PART else method, []).append(row)

    def order(row: Mapping[str, Any]) -> tuple[float, ...]:
        """Of equals the one that was tried first, as the tuning has it."""
        return (-(row["score"] or 0), *(row.get(key, 0) for key in ("lam", "beta", "lr", "epochs")))

    return {method: sorted(rows, key=order) for method, rows in found.items()}


def _machines(cells: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the cells were measured on, with how many of each part; several machines may share a study."""
    parts: dict[str, Counter[str]] = {}
    for name, numbers in cells.items():
        parts.setdefault(json.dumps(numbers.get(MACHINE)), Counter())[_part(name)] += 1
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
