"""What the numbers of the study say, in sentences: each is computed, and says the opposite where they do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, product

from cut_dist.study.names import name_of
from cut_dist.study.statistics import Interval, difference
from cut_dist.study.tuning import WEIGHTS

Row = Mapping[str, Interval]
Table = Mapping[str, Row]

AHEAD = 0.05  # the lead in accuracy that the study looks for
# Table 4 of the paper by its two measures, the worst first; it gives no TruthfulQA without L2 of Align-P.
PAPER_ABLATIONS = {
    "TruthfulQA": ("detection", "l1", "l2_align_n", "dynamic_weight"),
    "RLsum": ("detection", "l2_align_p", "l2_align_n", "l1", "dynamic_weight"),
}


def percent(x: Interval, sign: str = "") -> str:
    """A share in per cent with its interval."""
    mean, low, high = (f"{round(100 * value, 1) + 0.0:{sign}.1f}" for value in (x.mean, x.low, x.high))  # no −0.0
    return mean if math.isnan(x.low) else f"{mean} [{low}, {high}]"


def lead(table: Table, first: str, second: str, measure: str = "accuracy") -> Interval | None:
    """first − second, paired by seed, over the seeds that both have; None where they have none in common."""
    a, b = (table.get(name, {}).get(measure) for name in (first, second))
    gap = difference(a, b) if a and b else None
    return gap if gap and gap.values else None


def best(table: Table, among: Sequence[str], measure: str = "accuracy") -> str | None:
    present = [name for name in among if measure in table.get(name, {})]
    return max(present, key=lambda name: table[name][measure].mean, default=None)


def methods(table: Table, baselines: Sequence[str]) -> list[str]:
    """CUT against the best of the others, and the damage done elsewhere."""
    rival = best(table, baselines)
    said = [line for name in ("cut", WEIGHTS) if rival and (line := _against_best(table, name, rival))]
    if not said:
        return ["CUT and a baseline have no seed in common yet."]
    for measure, head in (("sampled", "Sampled"), ("others", "Greedy, families that were never judged")):
        others = ("base", *baselines)
        gaps = {name_of(name): found for name in others if (found := lead(table, "cut", name, measure))}
        said += [f"{head}, CUT − each: {_listed(gaps)}."] if gaps else []
    return said


def _against_best(table: Table, name: str, rival: str) -> str | None:
    gap, sampled = (lead(table, name, rival, measure) for measure in ("accuracy", "sampled"))
    if gap is None:
        return None
    own, theirs = table[name]["accuracy"], table[rival]["accuracy"]
    drawn = f", sampled {percent(sampled, '+')}" if sampled else ""
    return (
        f"{name_of(name)} − best baseline ({name_of(rival)}), paired by seed: {percent(gap, '+')} points of greedy "
        f"accuracy over {len(gap.values)} seeds{drawn}. A mean of at least {100 * AHEAD:.0f}: "
        f"{_yes(gap.mean >= AHEAD)}; told from 0: {_yes(gap.low > 0)}; the intervals of the two apart: "
        f"{_yes(own.low > theirs.high)}."
    )


def _yes(it_is: bool) -> str:
    return "yes" if it_is else "no"


def _listed(gaps: Mapping[str, Interval]) -> str:
    return "; ".join(f"{name} {percent(gap, '+')}" for name, gap in gaps.items())


def ablations(table: Table, parts: Sequence[str]) -> list[str]:
    """How much each part is worth, the most first, and whether that is the order of the paper."""
    losses = {part: gap for part in parts if (gap := lead(table, part, "cut")) is not None}
    order = sorted(losses, key=lambda part: losses[part].mean)
    said = [f"Against CUT: {_listed({name_of(part): losses[part] for part in order})}."] if order else []
    if not any(gap.apart() for gap in losses.values()):
        return [*said, "None is told apart from CUT, so they have no order to hold against the paper's."]
    for measure, worst_first in PAPER_ABLATIONS.items():
        here = [part for part in order if part in worst_first]
        there = [part for part in worst_first if part in order]
        if len(here) > 1:
            ours, papers = (", ".join(map(name_of, parts)) for parts in (here, there))
            verdict = "the same" if here == there else f"another, {papers}"
            said.append(f"Worst first: {ours}. By the paper's {measure}: {verdict}.")
    steps = {f"{name_of(b)} − {name_of(a)}": gap for a, b in pairwise(order) if (gap := lead(table, b, a)) is not None}
    said += [f"Between neighbours: {_listed(steps)}."] if steps else []
    return said


def weights(table: Table) -> list[str]:
    """Which of the settings does best, and whether it is told apart from CUT as it was tuned, row "cut"."""
    settings = [what for what in table if what not in ("base", "cut", WEIGHTS)]
    row = best(table, settings)
    gap = lead(table, row, "cut") if row else None
    if gap is None:
        return []
    name, points = name_of(row), percent(gap, "+")
    ahead = f"{name} has the best accuracy of {len(settings)} settings, {points} points against CUT as it was tuned"
    if gap.low > 0:
        return [f"Candidate: {name}. {ahead}. The best of many is flattered by its choice: the interval knows of one."]
    return [f"CUT stays as it was tuned. {ahead}: not told apart from it, or behind."]


def rounds(table: Table) -> list[str]:
    """Rounds, by both of their settings, against trainings at once; how many samples judged wanting each had."""
    online, said = ("online", "online_like_cut"), []
    pairs = [("online", "stale"), *product(online, ("offline", "offline_matched")), online[::-1]]
    for first, second in pairs:
        if (gap := lead(table, first, second)) is not None:
            verdict = "ahead" if gap.low > 0 else "behind" if gap.high < 0 else "not told apart"
            sampled = lead(table, first, second, "sampled")
            more = f"; sampled {percent(sampled, '+')}" if sampled else ""
            said.append(f"{name_of(first)} − {name_of(second)}: {percent(gap, '+')} points, {verdict}{more}.")
    counts = {name_of(name): f"{row['align_n'].mean:.0f}" for name, row in table.items() if "align_n" in row}
    listed = "; ".join(f"{name} {count}" for name, count in counts.items())
    return [*said, f"Samples judged wanting: {listed}."] if counts else said


def detection(row: Row, contrasts: Mapping[str, str]) -> list[str]:
    """The λ with the best F1 of each contrast, and whether precision and recall reach 0.8 there."""
    said = []
    for contrast, name in contrasts.items():
        points = curve(row, contrast, "f1")
        if not points:
            continue
        lam = max(points, key=lambda point: point[1].mean)[0]
        precision, recall = (row[f"{contrast}.{lam:g}.{measure}"] for measure in ("precision", "recall"))
        reached = min(precision.mean, recall.mean) >= 0.8
        said.append(
            f"{name}: best F1 at λ = {lam:g}, precision {percent(precision)} %, recall {percent(recall)} "
            f"%; both at least 80 %: {_yes(reached)}."
        )
    return said


def curve(row: Row, prefix: str, measure: str) -> list[tuple[float, Interval]]:
    """(λ, interval) of the measures that are named "<prefix>.<λ>.<measure>"."""
    parts = {name.removeprefix(f"{prefix}.").removesuffix(f".{measure}"): x for name, x in row.items()
             if name.startswith(f"{prefix}.") and name.endswith(f".{measure}")}  # fmt: skip
    return sorted(((float(lam), x) for lam, x in parts.items()), key=lambda point: point[0])


def against(table: Table, other: str, methods: Sequence[str], measure: str = "accuracy") -> list[str]:
    """The lead of each method over another row, such as the base model's."""
    gains = {name_of(name): gap for name in methods if name != other and (gap := lead(table, name, other, measure))}
    return [f"Points against {name_of(other)}: {_listed(gains)}."] if gains else []
