"""From the overrides of a command to a validated `Config`, by Hydra, with mistakes said in one sentence.

Hydra's compose interface is used, not `hydra.main`: it writes no files, has no clock, sets up no logging and
runs no callbacks, so it is the same on every rank.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cut_dist.config import AnyConfig, Config, asset_path, auto_name, to_config
from cut_dist.config_check import ConfigError, refuse_code, unknown_key
from cut_dist.config_deepspeed import refuse_computed
from cut_dist.wording import nearest

EXPERIMENT = "experiment"  # the group that is not in the defaults list, hence added with a +
_OTHERWISE = {  # how to name what is no member of the group
    "model": "Any other: model.name_or_path=<folder or Hub name>",
    "data": "Your own file: data=jsonl data.path=<file>",
}


def conf_dir() -> Path:
    """The folder of yaml files: the copy inside an installed package, or conf/ of the checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(f"There is no conf/train.yaml beside or inside {package}: install cut_dist again.")


def compose_config(
    config_name: str,
    overrides: Sequence[str],
    schema: type[AnyConfig] = Config,
    config_dir: str | None = None,
) -> AnyConfig:
    """Compose conf/<config_name>.yaml with `overrides` and validate the result; `run.name` is resolved.

    Args:
        config_name: stem of a yaml at the root of conf/.
        overrides: as typed, `objective.lam=1.2`, `deepspeed=zero2`, `+experiment=smoke`.
        schema: `Config` or a subclass, see `to_config`.
        config_dir: folder with group members and experiments of the user's own, searched beside conf/.

    Raises:
        ConfigError: in one sentence, what is wrong and what is nearest to it.
    """
    OmegaConf.register_new_resolver("asset", asset_path, replace=True)
    with initialize_config_dir(str(conf_dir()), job_name=config_name, version_base="1.3"):
        parsed = [parse_override(text) for text in overrides]
        search = _search_path(config_dir)
        groups = config_groups(search)
        for override in parsed:
            _check_override(override, groups, schema)
        _refuse_other_entry_points(parsed, schema)
        try:
            tree = compose(config_name, [*overrides, *search], return_hydra_config=True)
            cfg = to_config(_without_hydra(tree), schema)
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            raise _explained(error, config_name, parsed, groups, search) from error
    if cfg.run.name == "auto":
        cfg.run.name = auto_name(cfg, overrides)
    return cfg


def read_config(path: Path, overrides: Sequence[str] = (), schema: type[AnyConfig] = Config) -> AnyConfig:
    """Validate a composed configuration kept as a file, the config.yaml of a run's folder, with values on top.

    Args:
        path: YAML of the whole tree, as `run_folder.write_config` writes it.
        overrides: `objective.lam=1.2` and the like; groups are chosen no more.
        schema: as for `compose_config`.

    Raises:
        ConfigError: the file is missing or no configuration, or an override chooses a member of a group.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--config-file={path}: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config-file={path}: is no configuration; give the config.yaml of a run's folder.")
    tree = OmegaConf.create(content)
    for override in map(parse_override, overrides):
        if override.is_delete() or "." not in override.key_or_group and override.key_or_group != "seed":
            raise ConfigError(
                f"{override.input_line!r}: a composed configuration takes KEY=VALUE only, no groups; leave out "
                "--config-file to choose members and experiments."
            )
        _check_override(override, {}, schema)
        OmegaConf.update(tree, override.key_or_group, override.value(), force_add=True)
    return to_config(tree, schema)


def config_groups(search: Sequence[str] = ()) -> dict[str, list[str]]:
    """Group name to its members, of conf/ and of the folders in `search`. Needs an initialised Hydra."""
    loader = GlobalHydra.instance().config_loader()
    names = [name for name in loader.list_groups("") if name != "hydra"]
    # With a config name Hydra composes the whole tree for each group, which only the search path makes needful.
    where = {"config_name": "train", "overrides": list(search)} if search else {}
    return {name: loader.get_group_options(name, **where) for name in names}


def _without_hydra(tree: DictConfig) -> DictConfig:
    """The tree without Hydra's own section, once it is sure that no yaml has named code there."""
    section = OmegaConf.to_container(tree.hydra, resolve=False)
    for part in ("launcher", "sweeper"):  # where Hydra names classes of its own, which nothing here makes
        own = section.get(part)
        if isinstance(own, dict) and str(own.get("_target_")).startswith("hydra._internal."):
            del own["_target_"]
    refuse_code(section, "hydra")
    with open_dict(tree):
        del tree["hydra"]
    return tree


def _search_path(config_dir: str | None) -> list[str]:
    if config_dir is None:
        return []
    folder = Path(config_dir).resolve()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir={config_dir}: there is no such folder.")
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['file://{quoted}']"]


def parse_override(text: str) -> Override:
    """One override in Hydra's grammar.

    Raises:
        ConfigError: it can't be read; the message says how to write it.
    """
    hydra = GlobalHydra.instance()  # knows the members that a glob() of a group means
    loader = hydra.config_loader() if hydra.is_initialized() else None
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([text])[0]
    except HydraException:
        remedy = "write key=value, and quote a value with special characters twice: \"key='a, b = c'\""
        hint = f" Did you mean +{EXPERIMENT}={text}?" if text.replace("_", "").isalnum() else ""
        raise ConfigError(f"The override {text!r} can't be read: {remedy}.{hint}") from None


def _check_override(override: Override, groups: Mapping[str, Sequence[str]], schema: type) -> None:
    """Refuse what can be seen from one override alone: a sweep, an unknown group member, an unknown key."""
    key, added = override.key_or_group, override.is_add() or override.is_force_add()
    text = override.input_line
    if override.is_sweep_override():
        raise ConfigError(f"{text!r} lists several values, a sweep: try all with -m, give one, or quote the comma.")
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        raise ConfigError(f"{text!r}: Hydra itself has nothing to set here; it writes no files and no logs.")
    if override.is_delete():
        return
    if key in groups:
        value = text.partition("=")[2]
        if key == EXPERIMENT and not added:
            raise ConfigError(f"Write +{EXPERIMENT}={value} with the +: there is no {EXPERIMENT} by default.")
        if key != EXPERIMENT and added:
            raise ConfigError(f"Write {key}={value} without the +: {key} has a member chosen already.")
        if override.value() not in groups[key]:
            raise _unknown_member(key, value, groups[key])
        return
    check_key(key, schema, groups)
    section, _, rest = key.partition(".")
    if section == "deepspeed":
        refuse_computed(rest.partition(".")[0])
    if added and not override.is_force_add() and _is_leaf(key, schema):
        raise ConfigError(f"Write {text.lstrip('+')} without the +: the key is there already.")


def _refuse_other_entry_points(overrides: Iterable[Override], schema: type) -> None:
    """An experiment of launch/online.py or study.py has sections that no other one knows; say whose it is."""
    for override in overrides:
        path = conf_dir() / EXPERIMENT / f"{override.value()}.yaml"
        if override.key_or_group != EXPERIMENT or not path.is_file():
            continue
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
        for section, whose in (("online", "one of rounds"), ("study", "a study")):
            if section in sections and section not in typing.get_type_hints(schema):
                command = f"python launch/{section}.py +experiment={path.stem}"
                raise ConfigError(f"The experiment '{path.stem}' is {whose}: {command}")


def check_key(key: str, schema: type, groups: Iterable[str] = ()) -> None:
    """Raise a `ConfigError` unless the dotted `key` has a place in `schema`; free sections take any key."""
    kind, place = schema, ""
    for part in key.split("."):
        if dataclasses.is_dataclass(kind):
            hints = typing.get_type_hints(kind)
            if part not in hints:
                if place:
                    raise unknown_key(place, part, hints)
                raise unknown_key("", part, [*hints, *(set(groups) - set(hints))], _full_keys(hints))
            kind = _without_none(hints[part])
        elif typing.get_origin(kind) is dict:
            return
        else:
            raise ConfigError(f"'{place}' is one value; it has no key '{part}' in it.")
        place = f"{place}.{part}" if place else part


def _full_keys(hints: Mapping[str, Any]) -> dict[str, str]:
    """Key without its section → the key in full ("lr" → "train.lr"), several joined by "or"."""
    found: dict[str, list[str]] = {}
    for section, kind in hints.items():
        if dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                found.setdefault(field.name, []).append(f"{section}.{field.name}")
    return {name: "' or '".join(full) for name, full in found.items() if name not in hints}


def _is_leaf(key: str, schema: type) -> bool:
    """Whether the yaml of every entry point has `key`, so that it needs no +."""
    kind = schema
    for part in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return False
        kind = _without_none(typing.get_type_hints(kind)[part])
    return True


def _without_none(kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        return next(option for option in typing.get_args(kind) if option is not types.NoneType)
    return kind


def _unknown_member(group: str, value: str, members: Sequence[str], where: str = "") -> ConfigError:
    match = nearest(value, members)
    hint = f"; did you mean '{match}'?" if match else "."
    other = f" {_OTHERWISE[group]}." if group in _OTHERWISE else ""
    return ConfigError(f"{where}There is no {group} '{value}'{hint} There are: {', '.join(members)}.{other}")


def _explained(
    error: Exception,
    config_name: str,
    overrides: Sequence[Override],
    groups: Mapping[str, Sequence[str]],
    search: Sequence[str],
) -> ConfigError:
    """What Hydra, OmegaConf or YAML found wrong, as a `ConfigError`."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, value = error.missing_cfg_file.rpartition("/")
        return _unknown_member(group, value, error.options, where="In a defaults list: ")
    if isinstance(error, HydraException):
        for override in overrides:
            if override.key_or_group not in groups and not override.is_add() and not override.is_delete():
                chosen = [each.input_line for each in overrides if each.key_or_group in groups]
                problem = _not_in_tree(override, compose(config_name, [*chosen, *search]))
                if problem is not None:
                    return problem
    text = " ".join(str(error).split())
    return ConfigError(f"The configuration can't be composed: {text[:500]}{'...' if len(text) > 500 else ''}")


def _not_in_tree(override: Override, tree: DictConfig) -> ConfigError | None:
    """The error for a key that a free section (deepspeed, random_init, columns) of the tree doesn't have."""
    section, _, last = override.key_or_group.rpartition(".")
    parent = OmegaConf.select(tree, section)
    if not isinstance(parent, DictConfig):
        parent = {}
    if last in parent.keys():  # noqa: SIM118, a DictConfig does not contain a key whose value is still missing
        return None
    match = nearest(last, map(str, parent))
    hint = f"did you mean '{section}.{match}'? If not, " if match else ""
    return ConfigError(
        f"There is no key '{override.key_or_group}' in the chosen yaml; {hint}+{override.input_line} adds it."
    )
