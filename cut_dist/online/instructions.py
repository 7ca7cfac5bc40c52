"""The instructions of a round: new ones each time, a function of seed and round alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cut_dist.evaluation.driver import ON_INPUT
from cut_dist.online.config import OnlineConfig
from cut_dist.online.records import Instruction, read_records
from cut_dist.online.stage import StageError, open_stage
from cut_dist.verifiable import CheckError, make_checks, make_instructions

HELDOUT = 0  # the "round" whose instructions are evaluated on


def sample_instructions(cfg: OnlineConfig, number: int, output: Path) -> None:
    """Write the instructions of round `number`, or with number 0 those to evaluate on, to `output`.

    Raises:
        StageError: the file has too few instructions for so many rounds, or the rounds draw from those held out.
        RecordError: a file is none of instructions.
    """
    source = cfg.instructions
    files = {"heldout": source.heldout_path} if number == HELDOUT else {"instructions": source.path}
    inputs = {name: Path(path) for name, path in files.items() if path}
    counts = {"heldout": source.heldout} if number == HELDOUT else {"per_round": source.per_round}
    settings = {"source": source.source, "seed": cfg.seed, "round": number, "max_checks": source.max_checks, **counts}
    with open_stage("sample", output, Instruction, inputs, settings) as stage:
        if stage.done:
            return
        rows = _made(cfg, number) if source.source == "verifiable" else _read(cfg, number)
        if number == HELDOUT:
            _require_asked(cfg, rows)
        stage.finish(rows, {"instructions": len(rows)})


def _made(cfg: OnlineConfig, number: int) -> list[Instruction]:
    source = cfg.instructions
    split, count = ("heldout", source.heldout) if number == HELDOUT else ("train", source.per_round)
    start = max(number - 1, 0) * count
    rows = make_instructions(count, seed=cfg.seed, split=split, start=start, max_checks=source.max_checks)
    return [Instruction(**row) for row in rows]


def _read(cfg: OnlineConfig, number: int) -> list[Instruction]:
    source = cfg.instructions
    heldout = read_records(Path(source.heldout_path), Instruction) if source.heldout_path else []
    if number == HELDOUT:
        return heldout[: source.heldout or None]
    rows = read_records(Path(source.path), Instruction)
    if cfg.judge.name == "verifiable":
        _require_checks(rows, source.path, "judge=verifiable judges", "take another judge")
    shared = {row.instruction for row in rows} & {row.instruction for row in heldout}
    if shared:
        raise StageError(
            f"{len(shared):,} instructions are both in instructions.path={source.path} and in "
            f"instructions.heldout_path={source.heldout_path}, such as {min(shared)[:80]!r}: remove them from one"
        )
    needed = cfg.online.rounds * source.per_round
    if len(rows) < needed:
        raise StageError(
            f"{source.path} has {len(rows):,} instructions; {cfg.online.rounds} rounds of "
            f"instructions.per_round={source.per_round} take {needed:,} different ones: set one lower"
        )
    order = np.random.default_rng([cfg.seed, 0x1257]).permutation(len(rows))
    chosen = order[(number - 1) * source.per_round : number * source.per_round]
    return [rows[i] for i in chosen]


def _require_asked(cfg: OnlineConfig, heldout: list[Instruction]) -> None:
    """Refuse, before anything is paid for, what the evaluation could not ask or measure."""
    asking = [suite for suite in cfg.evaluation.suites if suite in ON_INPUT]
    if asking and not heldout:
        key = "heldout" if cfg.instructions.source == "verifiable" else "heldout_path"
        raise StageError(
            f"nothing is held out for evaluation.suites={asking}: give instructions.{key}, or take other suites"
        )
    if "verifiable" in asking:
        _require_checks(heldout, cfg.instructions.heldout_path, "the suite verifiable measures", "take another suite")


def _require_checks(rows: list[Instruction], path: str | None, who: str, otherwise: str) -> None:
    """Refuse, before anything is generated, what could not be judged or measured."""
    for row in rows:
        try:
            make_checks(row.metadata.get("checks", []))
        except CheckError as error:
            raise StageError(
                f"{path}: the instruction {row.id!r}: {error}. {who} by metadata.checks "
                f"(docs/verifiable.md): mend them, or {otherwise}"
            ) from error
