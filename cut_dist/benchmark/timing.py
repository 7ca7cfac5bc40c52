"""Contenders of one case: checked first, then timed by turns in one process, so that whatever drifts hits them all."""

from __future__ import annotations

import gc
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cut_dist.benchmark.memory import peak_bytes

log = logging.getLogger(__name__)

WHOLE = "the whole objective"
LIKELIHOOD = "the two likelihoods only"
OURS = "cut_dist"
_LEAD_CYCLES = 1_000_000  # of the GPU's clock: half a millisecond

Outputs = Sequence[torch.Tensor]


def nothing(repetition: int) -> None:
    """What a contender prepares that has nothing to prepare."""


@dataclass(frozen=True)
class Contender:
    """One way to compute something.

    Attributes:
        name: as the table shows it; those of this project begin with `OURS`.
        run: (number of the repetition) → whatever it computes; only this is timed.
        computes: a key of `Case.expected`.
        work: (number of the repetition) → the least work that what it computes asks for, in the floor's unit.
        outputs: () → loss and gradients to compare with what is expected; None: `run(0)`.
        prepare: (number of the repetition) → nothing; what must happen before that run, untimed.
        missing: why it can't run here; empty where it can.
        tokens: (number of the repetition) → useful tokens, where that is what counts.
    """

    name: str
    run: Callable[[int], Any] = nothing
    computes: str = WHOLE
    work: Callable[[int], float] = lambda repetition: 0.0
    outputs: Callable[[], Outputs] | None = None
    prepare: Callable[[int], None] = nothing
    missing: str = ""
    tokens: Callable[[int], int] | None = None


@dataclass(frozen=True)
class Floor:
    """What no contender can beat: `run` does `work` bytes or FLOPs and nothing else."""

    name: str
    unit: str  # "B/s" or "FLOP/s"
    run: Callable[[], Any]
    work: float


@dataclass(frozen=True)
class Case:
    """Contenders for the same sizes, what they should give, and how far they may be from it.

    `expected` is keyed by `Contender.computes`; `tolerance` bounds ‖x − expected‖/‖expected‖ of the loss and of each
    gradient.
    """

    suite: str
    title: str
    shape: dict[str, Any]
    floor: Floor
    contenders: Sequence[Contender]
    expected: Mapping[str, Outputs]
    tolerance: float
    details: dict[str, Any] = field(default_factory=dict)


# what a suite yields: its sizes in words, and how to make the case once its turn comes
SizedCase = tuple[str, Callable[[], Case]]


@dataclass
class Result:
    """What came of a contender. `status`: ok, wrong, out of memory, failed, not installed, ...; times only with ok."""

    contender: Contender
    status: str = "ok"
    error: float | None = None
    peak_bytes: int | None = None
    seconds: list[float] = field(default_factory=list)


def race(case: Case, device: torch.device, *, repetitions: int, seconds: float) -> tuple[list[Result], list[float]]:
    """Check every contender, then time those that passed, by turns in shuffled order.

    Args:
        repetitions: at most so many turns each.
        seconds: start no repetition but the first after so long.

    Returns:
        A result for each contender, and the times of the floor.
    """
    began = time.perf_counter()
    results = [_checked(contender, case, device) for contender in case.contenders]
    floor: list[float] = []
    order = random.Random(0)
    for repetition in range(repetitions):
        if repetition and time.perf_counter() - began > seconds:
            break
        floor.append(_timed(case.floor.run, device))
        running = [result for result in results if result.status == "ok"]
        for result in order.sample(running, len(running)):
            with _Guard(result, device):
                result.contender.prepare(repetition)
                result.seconds.append(_timed(lambda: result.contender.run(repetition), device))  # noqa: B023
    return results, floor


def _checked(contender: Contender, case: Case, device: torch.device) -> Result:
    """The verdict on a contender; if it may go on it has been run twice, the second time for its peak memory."""
    result = Result(contender, status=contender.missing or "ok")
    if contender.missing:
        return result
    with _Guard(result, device):
        if contender.outputs is None:
            contender.prepare(0)
            got = contender.run(0)
        else:
            got = contender.outputs()
        error = largest_error(got, case.expected[contender.computes])
        del got
        result.error = error if math.isfinite(error) else None
        if not error <= case.tolerance:
            result.status = "wrong" if math.isfinite(error) else "wrong, not finite"
            return result
        contender.prepare(0)
        result.peak_bytes = peak_bytes(lambda: contender.run(0), device)
    return result


class _Guard:
    """Notes in a result what stopped its contender, so that the others go on; memory is given back."""

    def __init__(self, result: Result, device: torch.device) -> None:
        self.result, self.device = result, device

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        full = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        reason = (str(error).strip().splitlines() or [""])[0]
        self.result.status = "out of memory" if full else f"failed: {type(error).__name__}: {reason}"[:200]
        self.result.seconds.clear()
        log.warning("%s: %s", self.result.contender.name, self.result.status)
        error.__traceback__ = None  # its frames hold the tensors
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return True


def largest_error(got: Outputs, expected: Outputs) -> float:
    """The largest ‖x − y‖/‖y‖ of pairs of tensors; NaN where anything is NaN."""
    errors = []
    for x, y in zip(got, expected, strict=True):
        y = y.to(x.device)
        norm = torch.linalg.vector_norm
        errors.append(float(norm(x.detach().to(y.dtype) - y) / norm(y)))
    return max(errors, key=lambda error: math.inf if math.isnan(error) else error)


def _timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one run; on CUDA those of the device, with the L2 cache written over first."""
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    torch.empty(256 * 2**20, dtype=torch.int8, device=device).zero_()  # larger than any L2
    torch.cuda._sleep(_LEAD_CYCLES)  # the host runs ahead meanwhile, so that launches are not what is timed
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
