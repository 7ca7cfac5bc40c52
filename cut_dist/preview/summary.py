"""What the data and the run come to, as small tables: counts, lengths, and how the first global batch is packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cut_dist.config import Config
from cut_dist.data.examples import Example, Prepared
from cut_dist.data.packing import example_tokens, plan_micro_batches
from cut_dist.data.sampler import Sampler
from cut_dist.objective_options import packing_options

_COUNTS = {  # key of Prepared.counts → what it is called for a reader
    "rows_read": "rows read",
    "rejected": "rejected, bad rows",
    "over_limit": "beyond data.limit",
    "heldout_not_chosen": "of the held-out file, not chosen",
    "align_p_downsampled_away": "Align-P left out (data.align_p_ratio, or without l2_align_p)",
    "left_out_by_objective": "left out, of no use to the objective",
    "overlong_dropped": "dropped, too long",
    "overlong_trimmed": "trimmed to data.max_length",
    "align_n": "Align-N to train on",
    "align_p": "Align-P to train on",
    "heldout": "held out",
}
_ALWAYS = ("rows_read", "rejected", "overlong_dropped", "overlong_trimmed", "align_n", "align_p", "heldout")
_MOST_RANKS = 64


@dataclass(frozen=True)
class Grid:
    """A table of text: the first column to the left, the others to the right."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


@dataclass(frozen=True)
class Packing:
    """How one global batch is dealt to a number of ranks.

    Attributes:
        micro_batches: that each rank computes.
        rank_tokens: what each rank computes in all, without fillers.
        fill: tokens as a share of all micro-batches' budgets.
        fillers: micro-batches of a rank that has nothing to do, and computes the shortest example for nothing.
    """

    ranks: int
    micro_batches: int
    rank_tokens: tuple[int, ...]
    fill: float
    fillers: int


def pack(costs: Sequence[int], ranks: int, token_budget: int) -> Packing:
    """Deal a global batch as the trainer would; arguments as of `plan_micro_batches`."""
    plan = plan_micro_batches(costs, ranks, token_budget)
    loads = np.array([[sum(costs[i] for i in members) for members in micro] for micro in plan])
    return Packing(
        ranks=ranks,
        micro_batches=len(plan),
        rank_tokens=tuple(int(tokens) for tokens in loads.sum(0)),
        fill=float(loads.mean() / token_budget),
        fillers=int((loads == 0).sum()),
    )


def summary_grids(data: Prepared, cfg: Config, sampler: Sampler) -> list[Grid]:
    """The tables over the whole data set."""
    return [_counts(data), _lengths(data, cfg), _packing(data.train, cfg, sampler)]


def _counts(data: Prepared) -> Grid:
    counts = {name: data.counts.get(name, 0) for name in _COUNTS}
    rows = [(label, f"{counts[name]:,}") for name, label in _COUNTS.items() if counts[name] or name in _ALWAYS]
    kinds = Counter(reject.kind for reject in data.rejects).most_common(5)
    note = "not used: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds) if kinds else ""
    return Grid("Data", ("", "rows"), rows, note)


def _lengths(data: Prepared, cfg: Config) -> Grid:
    examples = data.train + data.heldout
    lengths = {name: [] for name in ("instruction", "authentic", "fake")}
    for example in examples:
        for name, prompt in example.prompt_ids.items():
            lengths[name].append(len(prompt) + len(example.response_ids))
    lengths["response alone"] = [len(example.response_ids) for example in examples]
    if cfg.objective.contrast == "instruction":
        del lengths["fake"]
    rows = []
    for name, values in lengths.items():
        if values:
            low, middle, high, top = np.percentile(values, [0, 50, 95, 100])
            rows.append((name, f"{len(values):,}", f"{low:,.0f}", f"{middle:,.0f}", f"{high:,.0f}", f"{top:,.0f}"))
    note = f"prompt and response; data.max_length is {cfg.data.max_length:,}"
    return Grid("Tokens by context", ("", "examples", "min", "median", "p95", "max"), rows, note)


def _packing(train: Sequence[Example], cfg: Config, sampler: Sampler) -> Grid:
    costs = [example_tokens(example, packing_options(cfg.objective)["contrast"]) for example in train]
    first = [costs[i] for i in sampler.batch(0)]
    budget, ranks, rows = cfg.train.micro_batch_tokens, 1, []
    while ranks <= min(max(len(first), 1), _MOST_RANKS):
        packing = pack(first, ranks, budget)
        low, high = min(packing.rank_tokens), max(packing.rank_tokens)
        tokens = f"{low:,}" if low == high else f"{low:,} – {high:,}"
        rows.append((str(ranks), str(packing.micro_batches), tokens, f"{packing.fill:.0%}", str(packing.fillers)))
        ranks *= 2
    total = sum(costs) / len(costs) * sampler.total_examples
    note = (
        f"{len(first)} examples, {sum(first):,} tokens over all contexts; fill is of train.micro_batch_tokens = "
        f"{budget:,}. The run: {sampler.total_steps:,} steps, about {total:,.0f} tokens"
    )
    if any(row[-1] != "0" for row in rows):
        note += ". An idle micro-batch computes the shortest example for nothing, to keep step with the other ranks"
    longer = sum(cost > budget for cost in costs)
    if longer:
        note += f". {longer:,} of {len(costs):,} examples take more than the budget, the longest {max(costs):,}"
    columns = ("ranks", "micro-batches a rank", "tokens a rank", "fill", "idle")
    return Grid("First global batch", columns, rows, note)
