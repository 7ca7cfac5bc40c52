"""From the times of a case to its numbers: medians with spread, rates, shares of the floor, ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cut_dist.benchmark.timing import OURS, Case, Result
from cut_dist.throughput import mfu, peak_flops


def summarise(case: Case, results: Sequence[Result], floor: Sequence[float], device: torch.device) -> dict[str, Any]:
    """A case as it goes into the JSON: plain numbers, seconds, bytes, FLOPs.

    A contender that computes less than another has less work to do for the same share of the floor's rate. Ratios are
    medians over the repetitions of a contender's time divided by that of our first contender in the same repetition.
    """
    rate = case.floor.work / float(np.median(floor))
    base = next((r for r in results if r.contender.name.startswith(OURS) and r.seconds), None)
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    rows = [_row(result, rate, base, peak if case.floor.unit == "FLOP/s" else None) for result in results]
    return {
        "suite": case.suite,
        "title": case.title,
        "shape": case.shape,
        **case.details,
        "tolerance": case.tolerance,
        "repetitions": len(floor),
        "measured_rate": {"of": case.floor.name, "unit": case.floor.unit, "value": rate, **spread(floor)},
        "ours": base.contender.name if base else None,
        "contenders": rows,
    }


def _row(result: Result, rate: float, base: Result | None, peak: float | None) -> dict[str, Any]:
    contender, seconds = result.contender, np.array(result.seconds)
    row = {
        "name": contender.name,
        "computes": contender.computes,
        "status": result.status,
        "error": result.error,
        "peak_bytes": result.peak_bytes,
    }
    if not result.seconds or result.status != "ok":
        return row
    work = np.array([contender.work(i) for i in range(len(seconds))])
    row |= spread(seconds) | {"seconds": result.seconds, "share_of_rate": float(np.median(work / seconds)) / rate}
    if base is not None and len(base.seconds) == len(seconds):
        row["times_ours"] = float(np.median(seconds / np.array(base.seconds)))
    if contender.tokens is not None:
        tokens = np.array([contender.tokens(i) for i in range(len(seconds))])
        low, high = np.percentile(tokens / seconds, [20, 80]).tolist()
        per_s = float(tokens.sum() / seconds.sum())
        row |= {"useful_tokens": tokens.tolist(), "useful_tokens_per_s": per_s, "useful_tokens_per_s_p20": low}
        row |= {"useful_tokens_per_s_p80": high, "mfu": mfu(work.sum(), seconds.sum(), world_size=1, peak=peak)}
    return row


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 20th and 80th percentile."""
    low, middle, high = np.percentile(seconds, [20, 50, 80]).tolist()
    return {"median_s": middle, "p20_s": low, "p80_s": high}
