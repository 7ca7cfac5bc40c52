"""From a plain tree of keys to typed dataclasses, strictly; errors name the place and the nearest right key.

This file knows nothing of what the keys mean: the dataclasses say it by their annotations, by the ranges they
put on a field (`ranged`) and by what their `__post_init__` refuses.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from cut_dist.wording import UserError, nearest

Schema = TypeVar("Schema")

_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_SECRET = re.compile(r"api_?key|secret|password|passwd|credential|(^|_)token$", re.IGNORECASE)
_CODE = re.compile(r"_\w+_")  # _target_, _partial_, _recursive_, ...
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
NAME_RULE = "1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', not begin with '.' or '-' and not end with '.'"


class ConfigError(UserError, ValueError):
    """A configuration that can't be run. The message names the key, the value and the remedy."""


def ranged(
    default: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    why: str = "",
) -> Any:
    """A dataclass field whose number must lie in a range; null stays allowed where the annotation allows it.

    Args:
        default: the field's default.
        above: the value must be more than this.
        at_least: the value must be this or more.
        at_most: the value must be this or less.
        why: reason or remedy that the message ends with.
    """
    limits = {"above": above, "at_least": at_least, "at_most": at_most, "why": why}
    return dataclasses.field(default=default, metadata=limits)


def require(ok: bool, key: str, value: Any, what: str) -> None:
    """Raise a `ConfigError` that says `key=value: what` unless `ok`."""
    if not ok:
        raise ConfigError(f"{key}={shown(value)}: {what}.")


def shown(value: Any) -> str:
    """A value as a message shows it: as YAML writes it, control characters escaped, cut at 80 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value) if isinstance(value, int | float) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...'"


def unknown_key(
    place: str, key: str, choices: Iterable[str], elsewhere: Mapping[str, str] | None = None
) -> ConfigError:
    """The error for a key that the section `place` ("" is the root) does not have.

    Args:
        place: dotted path of the section.
        key: what was given.
        choices: the keys of that section.
        elsewhere: key → its full name, of other sections' keys that may have been meant.
    """
    choices, prefix = sorted(choices), f"{place}." if place else ""
    if _CODE.fullmatch(key):
        return _code_refused(f"{prefix}{key}")
    if _SECRET.search(key):
        return ConfigError(
            f"'{prefix}{key}' is refused: keys and passwords come from the environment (WANDB_API_KEY), "
            "never from the configuration, which is written to disk."
        )
    full = {**(elsewhere or {}), **{choice: f"{prefix}{choice}" for choice in choices}}
    match = nearest(key, full)
    hint = f"; did you mean '{full[match]}'?" if match else "."
    where = f"'{place}'" if place else "the configuration"
    return ConfigError(f"There is no key '{prefix}{key}'{hint} Keys of {where}: {', '.join(choices)}.")


def _code_refused(key: str) -> ConfigError:
    return ConfigError(f"'{key}' is refused: a configuration names no code here; remove the key.")


def is_name(text: str) -> bool:
    """Whether a folder may have this name (`NAME_RULE`): none that leaves its place, or that a shell could misread."""
    return _NAME.fullmatch(text) is not None


def check_name(key: str, name: str) -> None:
    """Refuse what is no name by `is_name`."""
    require(is_name(name), key, name, f"must be {NAME_RULE}")


def refuse_code(tree: Any, place: str = "") -> None:
    """Refuse Hydra's instantiation keys (`_target_`, `_partial_`, ...) at any depth."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            here = f"{place}.{key}" if place else str(key)
            if _CODE.fullmatch(str(key)):
                raise _code_refused(here)
            refuse_code(value, here)
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            refuse_code(value, f"{place}[{index}]")


def missing_keys(tree: Any, place: str = "") -> list[str]:
    """Dotted keys of a tree that are still `???`."""
    if isinstance(tree, Mapping):
        return [
            name for key, value in tree.items() for name in missing_keys(value, f"{place}.{key}" if place else str(key))
        ]
    return [place] if tree == "???" else []


def from_tree(schema: type[Schema], tree: Any, place: str = "") -> Schema:
    """Build the dataclass `schema` from a tree of plain values, recursively.

    Args:
        schema: a dataclass; its annotations may be bool, int, float, str, `Literal`, `list[...]`,
            `dict[...]`, another dataclass, and any of them `| None`.
        tree: mapping of key to value, as YAML gives it.
        place: dotted path of `tree`, for the messages.

    Raises:
        ConfigError: an unknown key, a missing one, a wrong type or range, or what `__post_init__` refuses.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{place}={shown(tree)}: '{place}' is a section of keys, not one value.")
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema)}
    for key in tree:
        if key not in fields:
            raise unknown_key(place, str(key), fields)
    values = {}
    for name, field in fields.items():
        here = f"{place}.{name}" if place else name
        if name in tree:
            values[name] = _convert(hints[name], tree[name], here)
            _check_range(here, values[name], field.metadata)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"'{here}' is missing; give it as {here}=...")
    return schema(**values)


def _convert(kind: Any, value: Any, place: str) -> Any:
    """`value` as the annotation `kind` wants it; only a whole number is coerced, where a float is wanted."""
    optional = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    if optional:
        if value is None:
            return None
        options = [option for option in typing.get_args(kind) if option is not types.NoneType]
        kind = type(value) if type(value) in options else options[0]
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return from_tree(kind, value, place)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return _choice(arguments, value, place)
    if origin is list:
        require(isinstance(value, list | tuple), place, value, "must be a list, [a, b, ...]")
        return [_convert(arguments[0], item, f"{place}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        require(isinstance(value, Mapping), place, value, "must be a mapping of keys to values")
        return {str(key): _convert(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    return _scalar(kind, value, place, optional)


def _choice(choices: tuple[str, ...], value: Any, place: str) -> str:
    if isinstance(value, str) and value in choices:
        return value
    match = nearest(str(value), choices)
    hint = f"; did you mean '{match}'?" if match else "."
    raise ConfigError(f"{place}={shown(value)}: must be one of {', '.join(choices)}{hint}")


def _scalar(kind: type, value: Any, place: str, optional: bool) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        # Hydra reads run.name=007 as the number 7, model.revision=1e5 as 100000.0: turned back into text they
        # would not be what was typed.
        was_text = kind is str and value is not None
        quoted = f"; quote it to keep it as typed: \"{place}='...'\"" if was_text else ""
        require(False, place, value, f"must be {_TYPE_NAMES[kind]}{' or null' if optional else ''}{quoted}")
    if kind is float:
        require(math.isfinite(value), place, value, "must be a finite number")
    if kind is str:
        require(value.replace("\n", "").isprintable(), place, value, "must have no control characters")
    return value


def _check_range(place: str, value: Any, limits: Mapping[str, Any]) -> None:
    if value is None or not limits:
        return
    above, at_least, at_most = limits["above"], limits["at_least"], limits["at_most"]
    bounds = []
    if above is not None:
        bounds.append(f"more than {above}")
    if at_least is not None:
        bounds.append(f"at least {at_least}")
    if at_most is not None:
        bounds.append(f"at most {at_most}")
    ok = (above is None or value > above) and (at_least is None or value >= at_least)
    ok = ok and (at_most is None or value <= at_most)
    why = f" ({limits['why']})" if limits["why"] else ""
    require(ok, place, value, f"must be {' and '.join(bounds)}{why}")
