"""The kernels' arguments and their checks: a sentence for each mistake, and none of them waits for an accelerator."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

IGNORE_INDEX = -100


class Rows(NamedTuple):
    """R rows of logits (R, V) in up to three contexts and what belongs to them, (R,): see `cut_token_loss`."""

    logits: Tensor
    logits_authentic: Tensor | None
    logits_fake: Tensor | None
    labels: Tensor
    is_negative: Tensor | None = None
    token_weight: Tensor | None = None


class Objective(NamedTuple):
    """λ, λ₂ and σ of the tests for inappropriate tokens, α and γ of the weight of unlikelihood; numbers alone."""

    lam: float
    alpha: float
    gamma: float
    lam_instruction: float = 0.0
    floor: float = 0.0

    @classmethod
    def of(cls, lam: float, alpha: float, gamma: float, lam_instruction: float | None, floor: float) -> Objective:
        """From the arguments of `cut_token_loss`. Without a second test every ratio passes, as at λ₂ = 0."""
        return cls(lam, alpha, gamma, 0.0 if lam_instruction is None else lam_instruction, floor)

    def log_thresholds(self) -> tuple[float, float, float]:
        """log λ, log λ₂ and log σ; −inf for 0."""
        return tuple(math.log(x) if x > 0 else -math.inf for x in (self.lam, self.lam_instruction, self.floor))


class CutRows(NamedTuple):
    """What the objective says of each row: (R,) each, `inappropriate` bool, the others float32 or float64."""

    loss_instruction: Tensor
    loss_authentic: Tensor
    inappropriate: Tensor
    logp: Tensor
    logp_authentic: Tensor
    logp_fake: Tensor


def may_look(tensor: Tensor) -> bool:
    """Whether values may decide what Python does: on an accelerator it would wait, in a graph there are none."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_objective(objective: Objective) -> None:
    """Raises ValueError unless all numbers are finite, none is negative, and σ is at most 1."""
    for name, value in zip(objective._fields, objective, strict=True):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}.")
    if objective.floor > 1:
        raise ValueError(f"floor must be a probability, at most 1, got {objective.floor!r}.")


def check_rows(rows: Rows) -> None:
    """Raises TypeError or ValueError unless the tensors of `cut_token_loss` fit together."""
    logits, logits_authentic, logits_fake, labels, is_negative, token_weight = rows
    _check_matrix("logits", logits)
    if logits.shape[1] == 0:
        raise ValueError("logits must have at least one column, a token of the vocabulary.")
    for name, other in (("logits_authentic", logits_authentic), ("logits_fake", logits_fake)):
        if other is not None:
            _check_shape(name, other, logits.shape)
            _check_alike(name, other, "logits", logits)
    _check_contrast("logits", logits_authentic, logits_fake)
    check_labels(labels, logits, vocabulary=logits.shape[1])
    check_token_weight(token_weight, labels)
    if is_negative is None:
        return
    if is_negative.dtype != torch.bool:
        raise TypeError(f"is_negative must be bool, got {is_negative.dtype}.")
    _check_shape("is_negative", is_negative, labels.shape)
    _check_device("is_negative", is_negative, "labels", labels)
    if logits_authentic is None and may_look(is_negative) and bool(is_negative.any()):
        raise ValueError("is_negative marks Align-N rows but logits_authentic is None.")


def check_hidden(
    hidden: Tensor, hidden_authentic: Tensor | None, hidden_fake: Tensor | None, weight: Tensor
) -> None:
    """Raises TypeError or ValueError unless the matrices of `fused_linear_cut` fit together."""
    _check_matrix("hidden", hidden)
    _check_matrix("weight", weight)
    if weight.shape[0] == 0:
        raise ValueError(
            "weight has no rows. Under ZeRO-3 a weight is whole only in the forward of the module that "
            "owns it: call fused_linear_cut there."
        )
    _check_shape("hidden", hidden, (hidden.shape[0], weight.shape[1]))
    _check_alike("hidden", hidden, "weight", weight)
    _check_contrast("hidden", hidden_authentic, hidden_fake)
    if hidden_authentic is not None:
        _check_matrix("hidden_authentic", hidden_authentic)
        _check_shape("hidden_authentic", hidden_authentic, (hidden_authentic.shape[0], weight.shape[1]))
        _check_alike("hidden_authentic", hidden_authentic, "hidden", hidden)
        if hidden_authentic.shape[0] > hidden.shape[0]:
            raise ValueError(
                f"hidden_authentic has {hidden_authentic.shape[0]} rows, hidden only {hidden.shape[0]}; its "
                "rows are the first rows of hidden in another context."
            )
    if hidden_fake is not None:
        _check_shape("hidden_fake", hidden_fake, hidden_authentic.shape)
        _check_alike("hidden_fake", hidden_fake, "hidden", hidden)


def check_labels(labels: Tensor, rows: Tensor, *, vocabulary: int) -> None:
    """Raises unless `labels` has a token id or −100 for each of `rows`; on the CPU only, looks at them."""
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}; use labels.long().")
    _check_shape("labels", labels, rows.shape[:1])
    _check_device("labels", labels, "the rows", rows)
    if not may_look(labels):
        return
    wrong = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= vocabulary))
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"labels[{first}] is {int(labels[first])}, neither {IGNORE_INDEX} (ignored) nor a token id below "
            f"the vocabulary size {vocabulary}."
        )


def check_token_weight(token_weight: Tensor | None, labels: Tensor) -> None:
    """Raises unless `token_weight` is None or floating point with one value a label."""
    if token_weight is None:
        return
    if not token_weight.is_floating_point():
        raise TypeError(f"token_weight must be floating point, got {token_weight.dtype}.")
    _check_shape("token_weight", token_weight, labels.shape)
    _check_device("token_weight", token_weight, "labels", labels)


def _check_contrast(name: str, authentic: Tensor | None, fake: Tensor | None) -> None:
    if authentic is None and fake is not None:
        raise ValueError(f"{name}_fake is given without {name}_authentic, which it is the contrast to.")


def _check_matrix(name: str, tensor: Tensor) -> None:
    if tensor.dim() != 2:
        raise ValueError(f"{name} must have two dimensions, got shape {tuple(tensor.shape)}.")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {tensor.dtype}.")


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != torch.Size(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}.")


def _check_alike(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.dtype != other.dtype:
        raise TypeError(f"{name} is {tensor.dtype} but {other_name} is {other.dtype}; cast one of them.")
    _check_device(name, tensor, other_name, other)


def _check_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(f"{name} is on {tensor.device}, {other_name} on {other.device}; move one of them.")
