"""The sections of a study's page, one for each part: its text, its table, what the numbers say, its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cut_dist.study import findings
from cut_dist.study.findings import Row, Table, percent
from cut_dist.study.judgments import MIXED, QUALITIES
from cut_dist.study.page_charts import bars, by_round, by_size, over_lambda, weights
from cut_dist.study.parts import ABLATIONS, LIKE_CUT, METHODS
from cut_dist.study.statistics import Interval
from cut_dist.study.tuning import WEIGHTS

if TYPE_CHECKING:
    from cut_dist.study.config import RealKeys

Tables = Mapping[str, Table]  # part → what → measure

BASELINES = tuple(name for name in METHODS if name != "cut")
_SHARES = {  # measure → head of its column
    "refined_right": "refinements right", "accuracy": "accuracy, greedy", "sampled": "sampled",
    "habits": "with a habit's trigger", "plain": "without", "others": "families not judged",
}  # fmt: skip
CONTRASTS = {  # prefix of a curve's measures → its name
    "fake": "contrast=fake", "instruction": "contrast=instruction", "unread": "contrast=fake, praise never read",
}  # fmt: skip
_DETECTED = {"precision": "precision", "recall": "recall", "share": "marked"}


@dataclass(frozen=True)
class Section:
    """A part on the page.

    Attributes:
        title, text: what was done.
        rows: the part's table with the rows it is compared with; what → measure.
        columns: measure → head.
        said: the findings.
        figures: name of a file → what draws its SVG element.
    """

    title: str
    text: str
    rows: Table
    columns: Mapping[str, str]
    said: Sequence[str]
    figures: Mapping[str, Callable[[], str]] = field(default_factory=dict)


TITLES = {  # of all parts that have a section
    "methods": "Methods side by side (paper, tables 2 and 3)",
    "ablations": "Ablations (paper, table 4)",
    "rounds": "Online rounds (paper, table 6)",
    "detection": "Which tokens are inappropriate (equation 5)",
    "sizes": "Detection by size of the model",
    "judgments": "The quality of judgments",
    "weights": "λ and contrast, γ and α",
    "align_p": "Align-P examples for each Align-N example (paper, figure 7)",
    "smollm2": "A real model on instructions that programs check",
}


def sections(tables: Tables, real: RealKeys) -> dict[str, Section]:
    """part → section, of the parts that were measured; `real`: how the real model was."""
    made = {
        "methods": _methods, "ablations": _ablations, "rounds": _rounds, "detection": _detection, "sizes": _sizes,
        "judgments": _judgments, "weights": _weights, "align_p": _align_p, "smollm2": partial(_smollm2, real=real),
    }  # fmt: skip
    return {part: make(tables) for part, make in made.items() if part in tables}


def _methods(tables: Tables) -> Section:
    rows = _base(tables) | _ordered(tables["methods"], METHODS) | _ordered(tables.get("weights", {}), (WEIGHTS,))
    return Section(
        TITLES["methods"],
        "Each method trains the same base model on the same judged samples of its own, at the learning rate and epochs "
        "(CUT: λ, and in a row of its own γ and α too; ILF-DPO: β) that were best, over all families, on another "
        f"laboratory. Judgments are {_mixture()}.",
        rows, _SHARES, [*findings.methods(rows, BASELINES), *_about_samples(tables)],
        {"methods": lambda: bars(rows)},
    )  # fmt: skip


def _ablations(tables: Tables) -> Section:
    rows = _base(tables) | _methods_row(tables, "cut") | _ordered(tables["ablations"], (*ABLATIONS, LIKE_CUT))
    said = findings.ablations(rows, ABLATIONS)
    if gap := findings.lead(rows, "l1", LIKE_CUT):
        said.append(f"CUT without L1 − hindsight with CUT's settings: {percent(gap, '+')} points.")
    text = "CUT as it was tuned, each time without one part of it; hindsight with CUT's learning rate and epochs."
    return Section(TITLES["ablations"], text, rows, _SHARES, said, {"ablations": lambda: bars(rows)})


def _rounds(tables: Tables) -> Section:
    rows = _ordered(tables["rounds"], ("online", "online_like_cut", "stale", "offline", "offline_matched"))
    return Section(
        TITLES["rounds"],
        "Rounds, each on fresh samples of the model that the last one left, against one training on as many samples of "
        "the base model, and one on as many right and as many wrong samples of it as the rounds had. Learning rate and "
        "epochs of the rounds are tuned for rounds; beside them rounds at those of the one training, and rounds whose "
        "samples are all of the base model.",
        _base(tables) | rows, _SHARES, findings.rounds(rows),
        {"rounds": lambda: by_round(rows, _base(tables))},
    )  # fmt: skip


def _detection(tables: Tables) -> Section:
    row = tables["detection"]["detection"]
    return Section(
        TITLES["detection"],
        "Precision and recall of the tokens that the base model's contrast marks in its own wrong samples, against the "
        "truly wrong ones. The praise of the fake context is one that the base model has read before right answers; "
        "\"never read\" are other words for it.",
        _lambdas(row), _DETECTED, findings.detection(row, CONTRASTS),
        {"detection": lambda: over_lambda(row, CONTRASTS)},
    )  # fmt: skip


def _sizes(tables: Tables) -> Section:
    sizes = tables["sizes"]
    rows = {f"{size}, {name}": x for size, row in sizes.items() for name, x in _lambdas(row).items()}
    said = [f"{size}: {text}" for size, row in sizes.items() for text in findings.detection(row, CONTRASTS)]
    text = "Base models of other sizes, pretrained alike, on their own wrong samples. The figure has contrast=fake."
    drawn = {f"{size} parameters": row for size, row in sizes.items()}
    if "detection" in tables:
        drawn |= {"the laboratory's": tables["detection"]["detection"]}
    return Section(TITLES["sizes"], text, rows, _DETECTED, said, {"sizes": lambda: by_size(drawn)})


def _judgments(tables: Tables) -> Section:
    names = [f"{method}-{quality}" for method in ("cut", "ilf_mle") for quality in QUALITIES]
    rows = _base(tables) | _methods_row(tables, "sft") | _ordered(tables["judgments"], names)
    said = [*findings.against(rows, "base", names), *findings.against(rows, "sft", names)]
    return Section(
        TITLES["judgments"],
        "The same samples, judged precisely (place, wrong and right symbol), by place only, vaguely, with mistakes "
        "that are none, or with a judgment of another response; which are right is told rightly. ILF refines by the "
        "same judgments. SFT on Align-P, beside them, needs no judgment but which answers are right.",
        rows, _SHARES, said, {"judgments": lambda: bars(rows)},
    )  # fmt: skip


def _weights(tables: Tables) -> Section:
    part = tables["weights"]
    rows = _base(tables) | _methods_row(tables, "cut") | dict(part)
    text = (
        "CUT as it was tuned, with one or two keys set otherwise; some settings are those that it was tuned to. "
        "Praise never read: the fake context has praise that the base model has never read. γ and α tuned too: as the "
        "tuning laboratory has them best."
    )
    return Section(TITLES["weights"], text, rows, _SHARES, findings.weights(rows), weights(part))


def _align_p(tables: Tables) -> Section:
    part = tables["align_p"]
    rows = _base(tables) | part
    few = f"{part[next(iter(part))]['align_n'].mean:.0f}" if part else "the same"
    return Section(
        TITLES["align_p"],
        f"CUT on {few} Align-N samples and as many times Align-P ones as a row says, all in as many steps as on all "
        "samples.",
        rows, _SHARES, findings.against(rows, "base", list(part)), {"align_p": lambda: bars(rows)},
    )  # fmt: skip


def _smollm2(tables: Tables, real: RealKeys) -> Section:
    methods = ("sft", "ilf_dpo", "cut", *(f"cut_round{number}" for number in range(2, real.rounds + 1)))
    rows = _ordered(tables["smollm2"], ("base", *methods))
    return Section(
        TITLES["smollm2"],
        f"{Path(real.model).name}: greedy answers to {real.heldout} held-out instructions a seed. Each method trains "
        f"on the same {real.instructions} judged answers of the model, {real.steps} steps of {real.global_batch_size}; "
        "each further round of CUT on as many answers of the model that the last one left.",
        rows, {"strict": "strict", "loose": "loose"},
        [line for other in ("base", *methods[:2]) for line in findings.against(rows, other, methods, "strict")],
        {"smollm2": lambda: bars(rows, "strict", "instructions followed, strict, %")},
    )  # fmt: skip


# ---- pieces ----------------------------------------------------------------------------------------------------------


def _about_samples(tables: Tables) -> list[str]:
    """What ILF's result hangs on: how many of the base model's refinements are right."""
    row = tables.get("samples", {}).get("samples", {})
    if not {"right", "refined_right"} <= set(row):
        return []
    right, refined = percent(row["right"]), percent(row["refined_right"])
    return [f"Of the base model's samples {right} % are right, of its refinements of the others {refined} %."]


def _mixture() -> str:
    """What judgments are like, in words: a share in per cent and a quality, several times."""
    return ", ".join(f"{100 * share:.0f} % {quality}" for quality, share in MIXED.items())


def _ordered(part: Table, names: Sequence[str]) -> dict[str, Row]:
    return {name: part[name] for name in names if name in part}


def _lambdas(row: Row) -> dict[str, dict[str, Interval]]:
    """One row for each contrast and λ."""
    return {
        f"{name}, λ = {lam:g}": {m: row[f"{contrast}.{lam:g}.{m}"] for m in ("precision", "recall", "share")}
        for contrast, name in CONTRASTS.items()
        for lam, _ in findings.curve(row, contrast, "f1")
    }


def _base(tables: Tables) -> dict[str, Row]:
    return _ordered(tables.get("base", {}), ("base",))


def _methods_row(tables: Tables, method: str) -> dict[str, Row]:
    return _ordered(tables.get("methods", {}), (method,))
