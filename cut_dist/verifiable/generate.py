"""Instructions made of a task and one to three checks that can hold together; any number, the same every time."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from cut_dist.config_check import ConfigError, require
from cut_dist.verifiable.base import Check, Task, pick
from cut_dist.verifiable.registry import KINDS, describe
from cut_dist.verifiable.tasks import SPLITS, Split, draw_task

_FORM_WEIGHTS = {
    "prose": 32, "list": 16, "answer": 18, "short": 11, "points": 8, "letter": 8, "choice": 5, "record": 3, "colour": 1,
}  # fmt: skip
_COUNT_WEIGHTS = (5, 3, 2)  # of instructions with one, two and three checks
_HELDOUT_SHARE = 5  # one in so many questions without a topic is held out
_TRIES = 2_000
MAX_CHECKS = len(_COUNT_WEIGHTS)


def make_instructions(
    count: int,
    seed: int,
    split: Split,
    *,
    start: int = 0,
    max_checks: int = 2,
    kinds: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Instructions number `start` to `start + count - 1` of an endless list without repeats.

    The list is decided by seed, split, max_checks and kinds; round r of an online run takes start = r·count. No text
    of one split occurs in the other, whatever the seeds: their topics differ, and questions without a topic are
    divided by a hash.

    Args:
        count: how many.
        seed: another seed gives another list, which may share texts with this one.
        split: "train" or "heldout"; the held-out one has topics, questions and wordings of its own.
        start: number of the first one; those before it are made too (thousands a second) and left out.
        max_checks: 1 (easy) to 3 checks an instruction.
        kinds: the kinds of checks to use; None: all.

    Returns:
        Rows {"id", "instruction", "metadata": {"checks": [{"kind", "params"}, ...]}}.

    Raises:
        ConfigError: an argument out of range, an unknown split or kind, or kinds too few for so many instructions.
    """
    require(count >= 0, "count", count, "must be 0 or more")
    require(start >= 0, "start", start, "must be 0 or more")
    require(split in SPLITS, "split", split, f"must be one of {', '.join(SPLITS)}")
    require(1 <= max_checks <= MAX_CHECKS, "max_checks", max_checks, f"must be 1 to {MAX_CHECKS}")
    for kind in kinds or ():
        require(kind in KINDS, "kinds", kind, f"must be names of kinds: {', '.join(sorted(KINDS))}")
    require(kinds is None or len(kinds) > 0, "kinds", kinds, "must name at least one kind, or be null for all")
    usable = [KINDS[kind] for kind in KINDS if kinds is None or kind in kinds]
    endless = _instructions(seed, split, max_checks, usable)
    rows = []
    for index, (text, checks) in enumerate(islice(endless, start, start + count), start=start):
        metadata = {"checks": [describe(check) for check in checks]}
        rows.append({"id": f"verifiable-{split}-{seed}-{index:06d}", "instruction": text, "metadata": metadata})
    return rows


def _instructions(
    seed: int, split: Split, max_checks: int, kinds: list[type[Check]]
) -> Iterator[tuple[str, list[Check]]]:
    by_form = {form: [kind for kind in kinds if form in kind.forms] for form in _FORM_WEIGHTS}
    by_form = {form: usable for form, usable in by_form.items() if usable}
    weights = [_FORM_WEIGHTS[form] for form in by_form]
    seen: set[str] = set()
    index = 0
    while True:
        for attempt in range(_TRIES):
            rng = random.Random(f"{seed}/{split}/{index}/{attempt}")
            task = draw_task(rng, rng.choices(list(by_form), weights)[0], split)
            checks = _draw_checks(rng, task, by_form[task.form], max_checks)
            if task.form in ("answer", "choice") and _split_of(task, checks) != split:
                continue
            text = _text(rng, task, checks, split)
            if text not in seen:
                break
        else:
            names = ", ".join(kind.kind for kind in kinds)
            raise ConfigError(f"only {index:,} different {split} instructions can be made of {names}; use more kinds")
        seen.add(text)
        yield text, checks
        index += 1


def _draw_checks(rng: random.Random, task: Task, kinds: list[type[Check]], max_checks: int) -> list[Check]:
    wanted = rng.choices(range(1, max_checks + 1), _COUNT_WEIGHTS[:max_checks])[0]
    checks: list[Check] = []
    taken: frozenset[str] = frozenset()
    while len(checks) < wanted and (free := [kind for kind in kinds if not kind.aspects & taken]):
        kind = rng.choice(free)
        taken |= kind.aspects
        checks.append(kind.draw(rng, task))
    return checks


def _split_of(task: Task, checks: list[Check]) -> Split:
    """The split that a question without a topic belongs to: decided by what it asks, not by how."""
    question = task.text or json.dumps([describe(check) for check in checks], sort_keys=True)
    return "heldout" if pick(range(_HELDOUT_SHARE), "split", question) == 0 else "train"


def _text(rng: random.Random, task: Task, checks: list[Check], split: Split) -> str:
    sentences = [task.text] if task.text else []
    for check in checks:
        wordings = check.wordings + check.new_wordings if split == "heldout" else check.wordings
        sentences.append(check.sentence(rng.choice(wordings)))
    return rng.choice((" ", " ", " ", "\n")).join(sentences)
