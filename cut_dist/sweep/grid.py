"""Which jobs a sweep has: from overrides with several values, in Hydra's grammar, to one setting a job, with a name."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from cut_dist.config_check import ConfigError, is_name
from cut_dist.config_compose import parse_override
from cut_dist.run_identity import readable_part

_OURS = ("run", "sweep")  # the sweep itself sets where a job lies and how it is called
_NAME_LENGTH, _HASH_LENGTH = 64, 6
_PLAIN = re.compile(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*")  # a value that a name shows whole


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], dict[str, Override]]:
    """The overrides with one value, and those with several by their key; a key typed twice means what is typed last.

    Raises:
        ConfigError: several values for a key that the sweep itself sets.
    """
    fixed: dict[str, str] = {}
    swept: dict[str, Override] = {}
    for text in overrides:
        override = parse_override(text)
        key = override.key_or_group
        for earlier in (fixed, swept):
            earlier.pop(key, None)
        if override.is_sweep_override():
            _check_key(override)
            swept[key] = override
        else:
            fixed[key] = text
    return list(fixed.values()), swept


def params_overrides(params: Mapping[str, Any], taken: set[str]) -> dict[str, Override]:
    """`sweep.params` of an experiment as overrides, less the keys that the command line has set or swept.

    Raises:
        ConfigError: values that are no text, or a key that can't be swept.
    """
    found = {}
    for key, values in params.items():
        if key.lstrip("+~") in taken:
            continue
        if isinstance(values, list | dict) or values is None:
            raise ConfigError(f"sweep.params.{key}={values!r}: write the values as on the command line, \"a,b\".")
        text = str(values).lower() if isinstance(values, bool) else str(values)
        override = parse_override(f"{key}={text}")
        _check_key(override)
        found[override.key_or_group] = override
    return found


def settings(swept: Mapping[str, Override]) -> list[dict[str, str]]:
    """Every combination, each as override key → value in text; the key given last changes fastest, as in Hydra."""
    lists = [[(override.get_key_element(), text) for text in values(override)] for override in swept.values()]
    return [dict(chosen) for chosen in itertools.product(*lists)]


def values(override: Override) -> list[str]:
    """The values of one override as Hydra writes them: choices, ranges, globs and quoted commas are its grammar's.

    Raises:
        ConfigError: a value is there twice, or an interval is given, which only a sweeper such as Optuna can search.
    """
    if override.is_sweep_override() and not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line!r} is no list of values: give them, or range(start,stop,step); "
            "to search an interval, python launch/sweep.py hydra/sweeper=optuna."
        )
    several = override.is_sweep_override()
    texts = list(override.sweep_string_iterator()) if several else [override.get_value_element_as_str()]
    for text in texts:
        if texts.count(text) > 1:
            raise ConfigError(f"{override.input_line!r} lists {text} twice.")
    return texts


def check_names(jobs: Sequence[Mapping[str, str]]) -> None:
    """Refuse settings of which two would have the same name."""
    names = [job_name(job) for job in jobs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two jobs of the sweep would be called {name!r}: write their values differently.")


def job_name(setting: Mapping[str, str]) -> str:
    """A readable name for a setting, of its own keys and values only: `alpha-0.25_gamma-1_lam-1.1`.

    So a job has the same name in a larger grid. Where it can't show all of a value (a path, a long text), digits of a
    hash follow.
    """
    keys = [key.lstrip("+~").partition("@")[0].replace("/", ".") for key in setting]
    last = [key.rpartition(".")[2] for key in keys]
    shown = {
        key: readable_part(word if last.count(word) == 1 else key, value)
        for key, word, value in zip(keys, last, setting.values())
    }
    name = "_".join(shown[key] for key in sorted(shown))
    if is_name(name) and all(_PLAIN.fullmatch(value) for value in setting.values()):
        return name
    room = _NAME_LENGTH - _HASH_LENGTH - 1
    digits = hashlib.sha256(repr(sorted(setting.items())).encode()).hexdigest()[:_HASH_LENGTH]
    return f"{name[:room].strip('._-') or 'job'}_{digits}"


def _check_key(override: Override) -> None:
    if override.key_or_group.partition(".")[0] in _OURS:
        key = override.key_or_group
        raise ConfigError(f"{override.input_line!r}: a sweep can't try values of '{key}', it sets that itself.")
