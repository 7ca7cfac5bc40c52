"""The cases of verifiable_cases.json: of every kind of check, responses that satisfy it, and others with the judgment
that each gets, word for word, and the spans that it blames. The first case of a kind is shown in docs/verifiable.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """A check, good responses, and bad ones with what is said of them and where."""

    kind: str
    params: dict[str, Any]
    good: list[str]
    bad: dict[str, tuple[str, list[list[int]]]]


CASES = [Case(**case) for case in json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))]
