"""The released way to compute a step: padded rows, logits of every position, a float32 softmax over all of them.

Written anew as plain PyTorch on a transformers model. Each example is two rows, padded on the left to the longest of
the micro-batch: one in the judged slot (the authentic context; for Align-P its instruction context) and one in the
plain slot (the instruction context; for Align-P nothing but padding). Examples are weighed as this project does it, so
that gradients can be compared; the released mean is a choice of `token_weight` (tests/test_benchmark_step.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from cut_dist.benchmark.formula import released_token_loss
from cut_dist.config import ObjectiveConfig
from cut_dist.data.examples import Example

IGNORED = -100
_SLOTS = {"instruction": ("instruction",), "fake": ("instruction", "fake")}  # contrast → contexts after the judged slot


@dataclass(frozen=True)
class PaddedBatch:
    """B examples as C·B rows of T tokens: the judged slot, the plain slot, with contrast=fake a third one.

    Attributes:
        input_ids, attention_mask, labels: (C·B, T) int64; labels are −100 off the response.
        is_negative: (B,) bool.
        token_weight: (B,) float32, of each response token.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    is_negative: Tensor
    token_weight: Tensor


def pad_examples(
    examples: Sequence[Example], weights: Sequence[float], contrast: str, device: torch.device
) -> PaddedBatch:
    """The padded rows of a micro-batch; `weights` as for `pack_examples`. The padding is token 0."""
    rows = [(e, "authentic" if e.is_negative else "instruction") for e in examples]
    for context in _SLOTS[contrast]:
        rows += [(e, context if e.is_negative else None) for e in examples]
    longest = max(len(e.prompt_ids[context]) + len(e.response_ids) for e, context in rows if context)
    ids, mask, labels = (np.full((len(rows), longest), fill, dtype=np.int64) for fill in (0, 0, IGNORED))
    for row, (example, context) in enumerate(rows):
        if context:
            tokens = np.concatenate([example.prompt_ids[context], example.response_ids])
            ids[row, -len(tokens) :], mask[row, -len(tokens) :] = tokens, 1
            labels[row, -len(example.response_ids) :] = example.response_ids
    tensors = [torch.from_numpy(x) for x in (ids, mask, labels)]
    tensors += [torch.tensor([e.is_negative for e in examples]), torch.tensor(weights, dtype=torch.float32)]
    return PaddedBatch(*(x.to(device) for x in tensors))


def released_loss(causal_lm: PreTrainedModel, batch: PaddedBatch, objective: ObjectiveConfig) -> Tensor:
    """The loss of a micro-batch by one forward over all padded rows.

    Not by cuDNN's attention: on H100 it may give NaN gradients where a row is padding alone (pytorch#196678).
    """
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        logits = causal_lm(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    return loss_of_logits(logits, batch, objective)


def loss_of_logits(logits: Tensor, batch: PaddedBatch, objective: ObjectiveConfig) -> Tensor:
    """The loss from the logits (C·B, T, V) of all positions; those at t predict the tokens at t + 1."""
    size = batch.is_negative.shape[0]
    probabilities = torch.softmax(logits.float(), dim=2)
    judged, labels = probabilities[:size, :-1].contiguous(), batch.labels[:, 1:]
    nll = F.nll_loss(torch.log(judged).flatten(0, 1), labels[:size].flatten(), reduction="none", ignore_index=IGNORED)
    loss = (batch.token_weight.unsqueeze(1) * nll.view(size, -1)).sum()
    if not batch.is_negative.any():
        return loss
    shifted = probabilities[:, :-1].contiguous()
    picked = shifted.gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
    judged, plain, *fake = (
        p[batch.is_negative][row_labels[batch.is_negative] != IGNORED]
        for p, row_labels in zip(picked.split(size), labels.split(size))
    )
    per_row = (labels[size : 2 * size][batch.is_negative] != IGNORED).sum(1)
    weight = batch.token_weight[batch.is_negative].repeat_interleave(per_row)
    contrast = fake[0].detach() if fake else plain
    return loss + (weight * released_token_loss(plain, judged, contrast, objective)).sum()
