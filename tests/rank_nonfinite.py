"""Run by test_nonfinite.py on 2 ranks: poisoned losses and gradients, in several stages and dtypes.

Usage: rank_nonfinite.py FOLDER. Writes FOLDER/cases.json on rank 0: one row a case with what was seen.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path

import torch
from deepspeed.utils import safe_get_full_grad

from cut_dist.engine import gradients
from cut_dist.engine.build import build_engine
from cut_dist.engine.launch import start_process, stop_process
from cut_dist.step_stats import SUMS
from cut_dist.train import GRADIENT_SQUARE, NOT_FINITE, accumulate, pack_batch

spec = importlib.util.spec_from_file_location("rank_equality", Path(__file__).with_name("rank_equality.py"))
equality = importlib.util.module_from_spec(spec)
spec.loader.exec_module(equality)

BAD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class BadGradient(torch.autograd.Function):
    """A finite loss whose gradient is `value`."""

    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.value, None


class Poisoned:
    """An engine whose forward gives a bad loss, or a loss with a bad gradient."""

    def __init__(self, engine, where: str, value: float):
        self._engine, self._where, self._value = engine, where, value

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def __call__(self, batch):
        out = self._engine(batch)
        if self._where == "loss":
            # added, so that the gradients stay finite: the vote must not need them
            return out._replace(loss=out.loss + self._value)
        return out._replace(loss=BadGradient.apply(out.loss, self._value))


def voted(engine, examples, cfg, ranks) -> bool:
    """Whether all ranks would take the step; every rank must come to the same."""
    sums = accumulate(engine, pack_batch(examples, cfg, ranks), cfg, ranks, None)
    torch.distributed.all_reduce(sums)
    return sums[NOT_FINITE].item() == 0 and math.isfinite(sums[GRADIENT_SQUARE].item())


def snapshot(engine, what) -> list[torch.Tensor]:
    return [what(p).detach().clone() for p in engine.module.parameters()]


def local_shard(p: torch.nn.Parameter) -> torch.Tensor:
    """What an update changes on this rank; under ZeRO-3 the parameter itself is empty outside its turn."""
    return getattr(p, "ds_tensor", p)


def main(folder: str) -> None:
    ranks = start_process()
    examples = equality.make_examples()
    rows = []
    for stage, precision in itertools.product((0, 1, 2, 3), ("fp32", "bf16")):
        cfg = equality.make_config(stage, "fake", 200, "example_mean")
        cfg.train.precision = precision
        engine = build_engine(cfg, ranks)
        assert voted(engine, examples, cfg, ranks)
        good = snapshot(engine, safe_get_full_grad)
        gradients.discard(engine)
        weights = snapshot(engine, local_shard)
        for where, kind, bad_ranks in itertools.product(("loss", "gradient"), BAD, ((0,), (1,), (0, 1))):
            poisoned = Poisoned(engine, where, BAD[kind]) if ranks.rank in bad_ranks else engine
            took = voted(poisoned, examples, cfg, ranks)
            gradients.discard(engine)
            after = voted(engine, examples, cfg, ranks)
            same = all(map(torch.equal, good, snapshot(engine, safe_get_full_grad)))
            gradients.discard(engine)
            unchanged = all(map(torch.equal, weights, snapshot(engine, local_shard)))
            case = {"stage": stage, "precision": precision, "where": where, "kind": kind, "ranks": bad_ranks}
            rows.append({**case, "took": took, "good_after": after, "same_gradients": same, "unchanged": unchanged})
        assert voted(engine, examples, cfg, ranks)
        engine.step()
        changed = not all(map(torch.equal, weights, snapshot(engine, local_shard)))
        finite = all(p.isfinite().all() for p in engine.module.parameters())
        rows.append({"stage": stage, "precision": precision, "step_after": bool(changed and finite)})
    everyone = [None] * ranks.world_size
    torch.distributed.all_gather_object(everyone, rows)
    if ranks.is_main:
        Path(folder, "cases.json").write_text(json.dumps(everyone))
    stop_process()


if __name__ == "__main__":
    assert SUMS.index("not_finite") == NOT_FINITE
    main(sys.argv[1])
