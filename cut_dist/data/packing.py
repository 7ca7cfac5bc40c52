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
        examples: indices into the list given to `pack_examples`, in the order of `labels`; none for a filler. An
            example of several terms comes once for each.
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


@dataclass(frozen=True)
class PackedPairs(PackedBatch):
    """A micro-batch of P pairs of responses, a chosen and a rejected one, for DPO.

    Attributes:
        row_pair: (R,) int64, the pair of each row.
        row_sign: (R,) float32, 1 on rows of chosen responses and -1 on those of rejected ones.
        pair_weight: (P,) float32, each pair's share of the loss of the global batch; 0 for a filler.
        reference_margin: (P,) float32, log π_ref(chosen) − log π_ref(rejected).
        beta: β of DPO.
    """

    row_pair: torch.Tensor
    row_sign: torch.Tensor
    pair_weight: torch.Tensor
    reference_margin: torch.Tensor
    beta: float

    def margins(self, logp: torch.Tensor) -> torch.Tensor:
        """(P,) how much more than the reference the model that gives `logp` (R,) prefers the chosen responses."""
        chosen_less_rejected = torch.zeros_like(self.reference_margin, dtype=logp.dtype)
        return chosen_less_rejected.index_add_(0, self.row_pair, self.row_sign * logp) - self.reference_margin


def pair_up(packed: PackedBatch, pairs: Sequence[Example], num_pairs: int, beta: float) -> PackedPairs:
    """Say which rows of a batch are which response of which pair.

    Args:
        packed: of the terms of `pairs`, in their order.
        num_pairs: of the global batch; 0 for a filler.
    """
    counts = torch.tensor(packed.row_counts)
    kind = torch.arange(2 * len(pairs))
    weight = 1 / num_pairs if num_pairs else 0.0
    own = {f.name: getattr(packed, f.name) for f in fields(packed)}
    return PackedPairs(
        **(own | {"token_weight": torch.full_like(packed.token_weight, weight)}),
        row_pair=(kind // 2).repeat_interleave(counts),
        row_sign=(1.0 - 2.0 * (kind % 2)).repeat_interleave(counts),
        pair_weight=torch.full((len(pairs),), weight),
        reference_margin=torch.tensor([pair.reference_margin for pair in pairs], dtype=torch.float32),
        beta=beta,
    )


def example_tokens(example: Example, contrast: str) -> int:
    """Tokens that the forward of one example takes, over all its contexts and terms."""
    contexts = CONTRASTS[contrast] if example.is_negative else ("instruction",)
    own = sum(len(example.prompt_ids[name]) + len(example.response_ids) - 1 for name in contexts)
    return own + sum(example_tokens(term, contrast) for term in example.also)


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


def term_weights(examples: Sequence[Example], reduction: str) -> list[tuple[float, ...]]:
    """`example_weights` of each term of each example: the loss is the sum of what each kind of term gives."""
    kinds = zip(*(example.terms for example in examples), strict=True)
    return list(zip(*(example_weights(kind, reduction) for kind in kinds), strict=True))


def pack_examples(
    examples: Sequence[Example], weights: Sequence[float], contrast: str, no_grad: Sequence[str] = NO_GRAD
) -> PackedBatch:
    """Pack all contexts of some examples into one row.

    Segments lie by context (instruction, authentic, fake), in each the Align-N examples first, so that the rows of
    the authentic and fake contexts line up with the first rows of the instruction context.

    Args:
        examples: at least one; what they have `also` is not looked at.
        weights: weight of one response token of each example (`example_weights`).
        contrast: "fake" or "instruction" (which context stands for the one with a fake positive judgment).
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
    examples: Sequence[Example], *, contrast: str, reduction: str, rank: int, world_size: int, token_budget: int,
    beta: float | None = None, no_grad: Sequence[str] = NO_GRAD,
) -> list[PackedBatch]:  # fmt: skip
    """This rank's micro-batches of a global batch; every rank gets the same number.

    A rank with nothing to do in a micro-batch computes the shortest example with weight 0: under ZeRO-3 every forward
    is a collective, so none may be left out. All terms of an example are in one micro-batch.

    Args:
        beta: of the preference between the two terms of each example (`PackedPairs`); None: their likelihood.
    """
    costs = [example_tokens(e, contrast) for e in examples]
    weights = term_weights(examples, reduction)
    filler = min(range(len(examples)), key=lambda i: costs[i])
    batches = []
    for bins in plan_micro_batches(costs, world_size, token_budget):
        members = bins[rank]
        present = members or [filler]
        owners = [i for i in present for _ in examples[i].terms]
        terms = [term for i in present for term in examples[i].terms]
        shares = [weight for i in present for weight in weights[i]] if members else [0.0] * len(terms)
        packed = pack_examples(terms, shares, contrast, no_grad)
        if beta is not None:
            packed = pair_up(packed, [examples[i] for i in present], len(examples) if members else 0, beta)
        packed = replace(packed, examples=tuple(owners[i] for i in packed.examples))
        batches.append(packed if members else replace(packed, examples=(), row_counts=()))
    return batches
