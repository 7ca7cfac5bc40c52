"""All kinds of checks by name, and checks made of what files and callers give."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cut_dist.config_check import ConfigError, from_tree, shown
from cut_dist.verifiable.base import Check
from cut_dist.verifiable.checks import (
    answers,
    case,
    frame,
    json_answers,
    layout,
    length,
    letters,
    lists,
    parts,
    sequences,
    structured,
    vocabulary,
)
from cut_dist.wording import UserError, nearest

_MODULES = (
    length, vocabulary, letters, case, frame, parts, lists, layout, json_answers, structured, answers, sequences,
)  # fmt: skip
KINDS: dict[str, type[Check]] = {
    kind.kind: kind
    for module in _MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Check) and "kind" in vars(kind)
}
CheckLike = Check | Mapping[str, Any]


class CheckError(UserError, ValueError):
    """A check that can't be made. The message names the kind, the parameter and the nearest right name."""


def make_check(kind: str, params: Mapping[str, Any]) -> Check:
    """A check of a kind, its parameters checked for name, type and range.

    Raises:
        CheckError: no such kind or parameter, one that is missing, or a value that it can't have.
    """
    if kind not in KINDS:
        match = nearest(str(kind), KINDS)
        hint = f"; did you mean '{match}'?" if match else f". Kinds: {', '.join(sorted(KINDS))}."
        raise CheckError(f"there is no kind of check {shown(kind)}{hint}")
    schema = KINDS[kind]
    if not isinstance(params, Mapping):
        raise CheckError(f"{kind}: 'params' must be an object of names and values, not {shown(params)}")
    fields = dataclasses.fields(schema)
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in params]
    unknown = [name for name in params if name not in {field.name for field in fields}]
    if missing and not unknown:
        raise CheckError(f"{kind}: the parameter '{missing[0]}' is missing")
    if unknown and not fields:
        raise CheckError(f"{kind} has no parameters, but '{unknown[0]}' is given")
    try:
        return from_tree(schema, params, kind)
    except ConfigError as error:
        raise CheckError(str(error)) from None


def make_checks(checks: Sequence[CheckLike]) -> list[Check]:
    """Checks of {"kind": ..., "params": {...}} objects, as an instruction's metadata lists them; checks pass through.

    Raises:
        CheckError: as `make_check`, with the number of the check in the list; or a list that isn't one or is empty.
    """
    if isinstance(checks, str | Mapping) or not isinstance(checks, Sequence):
        raise CheckError(f"'checks' must be a list of objects with 'kind' and 'params', not {shown(checks)}")
    if not checks:
        raise CheckError("'checks' is empty: without a check nothing can be judged")
    return [check if isinstance(check, Check) else _made(number, check) for number, check in enumerate(checks, start=1)]


def describe(check: Check) -> dict[str, Any]:
    """A check as files hold it: {"kind": ..., "params": {...}}."""
    return {"kind": check.kind, "params": check.params()}


def _made(number: int, entry: Any) -> Check:
    if not isinstance(entry, Mapping) or "kind" not in entry:
        raise CheckError(f"check {number}: must be an object with 'kind' and 'params', not {shown(entry)}")
    for name in entry:
        if name not in ("kind", "params"):
            raise CheckError(f"check {number}: has a field {shown(name)}; only 'kind' and 'params' are known")
    try:
        return make_check(entry["kind"], entry.get("params", {}))
    except CheckError as error:
        raise CheckError(f"check {number}: {error}") from None
