"""From the global batch to packed micro-batches: who computes what, and one row of tokens without padding.

A *segment* is one context of one example: its prompt and response without the last response token, which predicts
nothing. All segments of a micro-batch lie end to end in one row of T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from cut_dist.data.examples import Example

CONTRASTS = {"fake": ("instruction", "authentic", "fake"), "instruction": ("instruction", "authentic")}
NO_GRAD = ("fake",)  # contexts of plain CUT that are only read


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch of one rank. T tokens in S segments; R response tokens, the first R_neg of them of Align-N.

    Attributes:
        input_ids, position_ids: (1, T) int64; positions restart at each segment.
        cu_seqlens: (S + 1,) int32, where each segment begins, and T.
        segment_lengths: the S lengths, on the host, so that the CPU attention needs no device read.
        rows_instruction: (R,) int64, the positions whose hidden states predict `labels` in the instruction context.
        rows_authentic: (R_neg,) int64, the same for the authentic context of the Align-N examples.
        rows_fake: (R_neg,) int64 for the fake context, or None where the contrast is the instruction context.
        labels: (R,) int64 response tokens.
        token_weight: (R,) float32, each row's share of the loss of the global batch; 0 on filler rows.
        row_counts: response tokens of each example, in the order of `labels`, on the host.
        examples: indices into the list given to `pack_examples`, in the order of `labels`; none for a filler.
        num_no_grad_segments: how many segments at the end are of contexts that need no gradient.
        no_grad: those contexts.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    segment_lengths: tuple[int, ...]
    rows_instruction: torch.Tensor
    rows_authentic: torch.Tensor
    rows_fake: torch.Tensor | None
    labels: torch.Tensor
    token_weight: torch.Tensor
    row_counts: tuple[int, ...]
    examples: tuple[int, ...]
    num_no_grad_segments: int
    no_grad: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]

    def pinned(self) -> PackedBatch:
        """The same batch in page-locked memory, from which an accelerator copies while the host goes on."""
        return self._with(torch.Tensor.pin_memory)

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device; to an accelerator it is copied from pinned memory, without waiting."""
        if torch.device(device).type == "cpu":
            return self
        return self.pinned()._with(lambda x: x.to(device, non_blocking=True))

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> PackedBatch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(x) for name, x in tensors.items() if isinstance(x, torch.Tensor)})


def example_tokens(example: Example, contrast: str) -> int:
    """Tokens that the forward of one example takes, over all its contexts."""
    contexts = CONTRASTS[contrast] if example.is_negative else ("instruction",)
    return sum(len(example.prompt_ids[name]) + len(example.response_ids) - 1 for name in contexts)


def plan_micro_batches(costs: Sequence[int], world_size: int, token_budget: int) -> list[list[list[int]]]:
    """Deal the examples of a global batch to micro-batches and ranks, balanced by tokens.

    As few micro-batches a rank (the same on every rank) as the greedy deal needs for no bin to pass the budget: the
    longest example goes first, each into the emptiest bin. An example longer than the budget gets a bin of its own.

    Args:
        costs: tokens of each example of the global batch.
        world_size: number of ranks.
        token_budget: tokens of one micro-batch on one rank.

    Returns:
        `plan[micro][rank]`, a list of positions in `costs`; some lists may be empty.
    """
    order = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
    fewest = -(-sum(costs) // (world_size * token_budget))
    for micros in range(max(1, min(fewest, len(costs))), len(costs) + 1):
        bins: list[list[int]] = [[] for _ in range(micros * world_size)]
        loads = [0] * len(bins)
        for i in order:
            emptiest = loads.index(min(loads))
            bins[emptiest].append(i)
            loads[emptiest] += costs[i]
        if all(load <= token_budget or len(members) == 1 for load, members in zip(loads, bins)):
            break
    return [[sorted(bins[micro * world_size + rank]) for rank in range(world_size)] for micro in range(micros)]


def example_weights(examples: Sequence[Example], reduction: str) -> list[float]:
    """The weight of one response token of each example of a global batch, so that the weighted sum is its loss.

    `example_mean`: the mean over examples of each one's mean over tokens (paper eq. 6 and 7); `token_mean`: the mean
    over all response tokens.
    """
    if reduction == "token_mean":
        return [1.0 / sum(len(e.response_ids) for e in examples)] * len(examples)
    return [1.0 / (len(examples) * len(e.response_ids)) for e in examples]


def pack_examples(
    examples: Sequence[Example], weights: Sequence[float], contrast: str, no_grad: Sequence[str] = NO_GRAD
) -> PackedBatch:
    """Pack all contexts of some examples into one row.

    Segments lie by context (instruction, authentic, fake), in each the Align-N examples first, so that the rows of
    the authentic and fake contexts line up with the first rows of the instruction context.

    Args:
        examples: at least one.
        weights: weight of one response token of each example (`example_weights`).
        contrast: "fake" or "instruction" (DESIGN: the context that stands for the fake positive judgment).
        no_grad: contexts that have no loss; of the authentic one only together with the fake one, which lies last.
    """
    order = sorted(range(len(examples)), key=lambda i: (not examples[i].is_negative, i))
    negatives = [i for i in order if examples[i].is_negative]
    tokens: list[np.ndarray] = []
    lengths: list[int] = []
    rows: dict[str, torch.Tensor] = {}
    for context in CONTRASTS[contrast]:
        spans = [np.empty(0, dtype=np.int64)]
        for i in order if context == "instruction" else negatives:
            prompt, response = examples[i].prompt_ids[context], examples[i].response_ids
            begin = sum(lengths) + len(prompt) - 1
            spans.append(np.arange(begin, begin + len(response)))
            tokens += [prompt, response[:-1]]
            lengths.append(len(prompt) + len(response) - 1)
        rows[context] = torch.from_numpy(np.concatenate(spans))
    counts = [len(examples[i].response_ids) for i in order]
    return PackedBatch(
        input_ids=torch.from_numpy(np.concatenate(tokens).astype(np.int64))[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths]))[None],
        cu_seqlens=torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32)),
        segment_lengths=tuple(lengths),
        rows_instruction=rows["instruction"],
        rows_authentic=rows["authentic"],
        rows_fake=rows.get("fake"),
        labels=torch.from_numpy(np.concatenate([examples[i].response_ids for i in order]).astype(np.int64)),
        token_weight=torch.from_numpy(np.repeat([weights[i] for i in order], counts).astype(np.float32)),
        row_counts=tuple(counts),
        examples=tuple(order),
        num_no_grad_segments=len(negatives) * sum(context in no_grad for context in CONTRASTS[contrast]),
        no_grad=tuple(context for context in CONTRASTS[contrast] if context in no_grad),
    )


def rank_micro_batches(
    examples: Sequence[Example],
    *,
    contrast: str,
    reduction: str,
    rank: int,
    world_size: int,
    token_budget: int,
    no_grad: Sequence[str] = NO_GRAD,
) -> list[PackedBatch]:
    """This rank's micro-batches of a global batch; every rank gets the same number.

    A rank with nothing to do in a micro-batch computes the shortest example with weight 0: under ZeRO-3 every forward
    is a collective, so none may be left out.
    """
    costs = [example_tokens(e, contrast) for e in examples]
    weights = example_weights(examples, reduction)
    filler = min(range(len(examples)), key=lambda i: costs[i])
    batches = []
    for bins in plan_micro_batches(costs, world_size, token_budget):
        members = bins[rank]
        if members:
            packed = pack_examples([examples[i] for i in members], [weights[i] for i in members], contrast, no_grad)
            packed = replace(packed, examples=tuple(members[i] for i in packed.examples))
        else:
            packed = replace(pack_examples([examples[filler]], [0.0], contrast, no_grad), examples=(), row_counts=())
        batches.append(packed)
    return batches
