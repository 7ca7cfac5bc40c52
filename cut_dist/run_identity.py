"""What makes a run the same run: identity, name and folder, as functions of the configuration alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cut_dist.config_check import ConfigError, require

if TYPE_CHECKING:
    from cut_dist.config import Config

ASSETS = Path(__file__).resolve().parent / "assets"

_PACE_AND_PRICE = (
    "api_key_variable", "output_limit", "concurrency", "timeout_s", "max_attempts", "requests_per_minute",
    "tokens_per_minute", "input_price", "output_price", "budget",
)  # fmt: skip
# Keys that say where, how often or how fast, and change no result beyond rounding: a run may go on with
# others.
NEUTRAL = (
    "run",
    "tracker",
    "eval",
    "checkpoint",
    "preview",
    "sweep",
    "data.cache_dir",
    "model.attention",
    "model.context_split",
    "model.checkpointing",
    "train.micro_batch_tokens",
    "stage",
    "evaluation",  # evaluation.json has the settings of each suite
    "online.rounds",  # more may be added
    "online.launcher",
    "online.evaluate_first",
    "generator.serve_timeout_s",
    *(f"judge.{key}" for key in ("cache", "port", "max_set_aside")),
    *(f"{section}.endpoint.{key}" for section in ("generator", "judge") for key in _PACE_AND_PRICE),
)
_NAME_LENGTH, _PART_LENGTH, _HASH_LENGTH = 64, 28, 6
_TELLING = ("model", "model.name_or_path", "data", "data.path")


def identity(cfg: Config) -> dict[str, Any]:
    """What a resumed run must share with the one it continues: the configuration less the `NEUTRAL` keys."""

    def keep(tree: Mapping[str, Any], place: str) -> dict[str, Any]:
        kept = {}
        for key, value in tree.items():
            here = f"{place}.{key}" if place else key
            if not _is_neutral(here):
                kept[key] = keep(value, here) if isinstance(value, Mapping) else _portable(value)
        return kept

    return keep(dataclasses.asdict(cfg), "")


def config_hash(cfg: Config) -> str:
    """SHA-256 of `identity(cfg)` as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity(cfg), sort_keys=True).encode()).hexdigest()


def auto_name(cfg: Config, overrides: Iterable[str]) -> str:
    """The name that stands for `run.name=auto`.

    Args:
        cfg: the validated configuration.
        overrides: the command's overrides as typed, such as `objective.lam=1.2` or `+experiment=smoke`.

    Returns:
        "default" where no override changes the run's identity, else for instance `alpha-0.5_lam-1.2_3f9ac1`:
        the keys sorted, so that the order typed does not matter, then digits of `config_hash`; at most 64
        characters. Where there are too many, model and data go first and the others as far as they fit.
    """
    parts = {}
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        key = key.partition("@")[0].replace("/", ".")
        if key != "experiment" and not _is_neutral(key):
            parts[key] = readable_part(key.rpartition(".")[2], value)
    if not parts:
        return "default"
    room = _NAME_LENGTH - _HASH_LENGTH - 1
    readable = "_".join(parts[key] for key in sorted(parts))
    if len(readable) > room:
        readable = "_".join(_fitting(parts, room)).strip("._-")
    return f"{readable or 'run'}_{config_hash(cfg)[:_HASH_LENGTH]}"


def _fitting(parts: Mapping[str, str], room: int) -> list[str]:
    """The parts, by sorted key, that fit into `room` characters when joined by one; a very long part is cut.

    Which model and which data tell runs apart best, so these get their place before the others.
    """
    chosen = {}
    for key in sorted(parts, key=lambda key: (key not in _TELLING, key)):
        part = parts[key][:_PART_LENGTH].strip("._-")
        if len(part) <= room:
            chosen[key] = part
            room -= len(part) + 1
    return [chosen[key] for key in sorted(chosen)]


def run_dir(cfg: Config) -> Path:
    """The run's folder, `<run.root>/<run.experiment>/<run.name>`; it is not created.

    Raises:
        ConfigError: the name is still "auto", or the folder is a link that leads out of `run.root`.
    """
    if cfg.run.name == "auto":
        raise ConfigError("run.name=auto has no folder: give a name, or take the one that auto_name makes.")
    root = Path(cfg.run.root)
    folder = root / cfg.run.experiment / cfg.run.name
    inside = folder.resolve().is_relative_to(root.resolve())
    remedy = f"{folder} leads out of run.root; set run.root to where the runs shall lie"
    require(inside, "run.name", cfg.run.name, remedy)
    return folder


def asset_path(name: str) -> str:
    """The file behind `${asset:name}`, shipped with the package, in a checkout and in a wheel alike."""
    path = (ASSETS / name).resolve()
    require(path.is_relative_to(ASSETS), "asset", name, "must stay inside the package's assets")
    return str(path)


def _is_neutral(key: str) -> bool:
    return any(key == neutral or key.startswith(f"{neutral}.") for neutral in NEUTRAL)


def _portable(value: Any) -> Any:
    """A path into the package's assets, written so that it is the same wherever the package lies."""
    if isinstance(value, str) and value.startswith(f"{ASSETS}/"):
        return f"pkg://{value[len(str(ASSETS)) + 1 :]}"
    return value


def readable_part(key: str, value: str) -> str:
    """A key's last word and its value as part of a name: `path=../data/iter2.json` becomes `path-iter2`."""
    value = value.strip("'\" ")
    if "/" in value or key.endswith("path"):
        value = Path(value).stem
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{key}-{value}").strip("-.")
