"""Which implementation computes the objective's rows, and the operation that stands for it in a compiled graph."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from torch import Tensor

from cut_dist.kernels.arguments import CutRows, Objective, Rows

# Modules whose `cut_rows` has the signature of cut_loss_torch.cut_rows, imported when first asked for.
BACKENDS = {"torch": "cut_dist.kernels.cut_loss_torch", "triton": "cut_dist.kernels.cut_loss_triton"}

# Constants, so that torch.compile can follow.
HAS_TRITON = importlib.util.find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton looks at it when it is imported

_SCHEMA = (
    "(str backend, Tensor logits, Tensor? logits_authentic, Tensor? logits_fake, Tensor labels, Tensor? is_negative, "
    "Tensor? token_weight, Tensor objective, Tensor(a!)? grad, Tensor(b!)? grad_authentic) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def select_backend(backend: str, logits: Tensor) -> Callable[..., CutRows]:
    """The function that computes rows like `logits`, which may be any tensor of their device and dtype.

    In a graph that torch.compile makes it is one opaque operation; outside, the implementation itself, which spares the
    40 µs that calling such an operation takes.

    Raises:
        ValueError, TypeError, ModuleNotFoundError: no such backend, or none for this device or dtype.
    """
    if backend == "auto":
        backend = "triton" if HAS_TRITON and logits.is_cuda and logits.dtype != torch.float64 else "torch"
    elif backend not in BACKENDS:
        choices = " or ".join(repr(name) for name in ("auto", *BACKENDS))
        raise ValueError(f"the CUT loss has no backend {backend!r}; use {choices}.")
    elif backend == "triton":
        _check_triton(logits)
    if torch.compiler.is_compiling():
        return partial(_in_graph, backend)
    return import_module(BACKENDS[backend]).cut_rows


def _check_triton(logits: Tensor) -> None:
    if not HAS_TRITON:
        raise ModuleNotFoundError("backend='triton' needs the package triton; install it, or use backend='torch'.")
    if logits.dtype == torch.float64:
        raise TypeError("backend='triton' computes in float32; for float64 logits use backend='torch' or 'auto'.")
    if not logits.is_cuda and not (logits.device.type == "cpu" and _INTERPRETED):
        raise ValueError(
            f"backend='triton' runs on CUDA devices, but the tensors are on {logits.device}; use backend='torch', or, "
            "for a test on the CPU, set TRITON_INTERPRET=1 before Python starts."
        )


@torch.library.custom_op("cut_dist::cut_rows", mutates_args=("grad", "grad_authentic"), schema=_SCHEMA)
def _operation(backend: str, *arguments: Tensor | None) -> tuple[Tensor, ...]:
    rows, objective, buffers = Rows(*arguments[:6]), Objective(*arguments[6].tolist()), arguments[7:]
    return tuple(import_module(BACKENDS[backend]).cut_rows(rows, objective, *buffers))


@_operation.register_fake
def _(backend: str, logits: Tensor, *_: Tensor | None) -> tuple[Tensor, ...]:
    single = logits.new_empty(logits.shape[0], dtype=torch.promote_types(logits.dtype, torch.float32))
    return tuple(
        torch.empty_like(single, dtype=torch.bool if field == "inappropriate" else None) for field in CutRows._fields
    )


def _in_graph(
    backend: str, rows: Rows, objective: Objective, grad: Tensor | None, grad_authentic: Tensor | None
) -> CutRows:
    # Floats among an operation's arguments would become constants of the graph, compiled anew for each λ.
    one = torch.ones((), dtype=torch.float64, device="cpu")
    objective = torch.stack([one * value for value in objective])
    return CutRows(*_operation(backend, *rows, objective, grad, grad_authentic))
