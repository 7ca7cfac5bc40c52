"""Run by test_state.py on 2 ranks: checkpoint, load and gather of a partitioned engine; and the offloaded one.

Usage: rank_state.py FOLDER. Writes FOLDER/seen.json on rank 0.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch

from cut_dist import checkpoint, manifest
from cut_dist.engine import MainRankError, gradients
from cut_dist.engine.build import build_engine
from cut_dist.engine.launch import start_process, stop_process
from cut_dist.engine.state import full_state_dict, load_checkpoint, on_every_rank, on_main, save_checkpoint
from cut_dist.process import remove_shared_buffers
from cut_dist.train import GRADIENT_SQUARE, accumulate, pack_batch

spec = importlib.util.spec_from_file_location("rank_equality", Path(__file__).with_name("rank_equality.py"))
equality = importlib.util.module_from_spec(spec)
spec.loader.exec_module(equality)


def draws() -> list[float]:
    return [torch.rand(()).item(), random.random(), float(np.random.rand())]


def main(folder: str) -> None:
    ranks = start_process()
    root, examples = Path(folder) / "checkpoints", equality.make_examples()
    cfg = equality.make_config(3, "fake", 200, "example_mean")
    engine = build_engine(cfg, ranks)
    initial = full_state_dict(engine, ranks)
    accumulate(engine, pack_batch(examples, cfg, ranks), cfg, ranks, None)
    gradients.step(engine)
    trained = full_state_dict(engine, ranks)
    torch.manual_seed(100 + ranks.rank)
    random.seed(100 + ranks.rank)
    np.random.seed(100 + ranks.rank)
    hashed = []
    read = manifest.file_sha256
    manifest.file_sha256 = lambda path: hashed.append(path.name) or read(path)
    save_checkpoint(engine, ranks, root, 1, keep_last=2)
    manifest.file_sha256 = read
    expected = draws()

    fresh = build_engine(cfg, ranks)
    load_checkpoint(fresh, ranks, root / checkpoint.tag_of(1))
    seen = {"same_draws": draws() == expected, "draws": expected, "hashed": hashed}
    committed = manifest.read_manifest(root / checkpoint.tag_of(1))
    seen["manifest"] = sorted(Path(name).name for name in committed["files"])
    loaded = full_state_dict(fresh, ranks)
    if ranks.is_main:
        seen["changed"] = any(not torch.equal(initial[k], trained[k]) for k in initial)
        seen["same_weights"] = all(torch.equal(loaded[k], trained[k]) for k in trained)
        seen["partitioned"] = all(p.numel() == 0 for p in fresh.module.parameters())
        seen["names"] = sorted(loaded)

    def fail():
        raise KeyError("nothing")

    try:
        on_main(ranks, fail, "fetch nothing")
    except MainRankError as error:
        seen["told"] = str(error)

    def fail_on_1():
        if ranks.rank == 1:
            raise ValueError("made to fail")

    try:
        on_every_rank(ranks, fail_on_1, "divide")
    except MainRankError as error:
        seen["told_by_1"] = str(error)

    twin = build_engine(cfg, ranks)
    plain = accumulate(twin, pack_batch(examples, cfg, ranks), cfg, ranks, None)
    gradients.step(twin)
    twin_weights = full_state_dict(twin, ranks)
    cfg.deepspeed["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    offloaded = build_engine(cfg, ranks)
    both = torch.stack([plain, accumulate(offloaded, pack_batch(examples, cfg, ranks), cfg, ranks, None)])
    torch.distributed.all_reduce(both)
    seen["norms"] = both[:, GRADIENT_SQUARE].sqrt().tolist()
    gradients.discard(offloaded)
    untouched = full_state_dict(offloaded, ranks)
    accumulate(offloaded, pack_batch(examples, cfg, ranks), cfg, ranks, None)
    gradients.step(offloaded)
    stepped = full_state_dict(offloaded, ranks)
    if ranks.is_main:
        seen["untouched"] = all(torch.equal(untouched[k], initial[k]) for k in initial)
        seen["apart"] = max((stepped[k] - twin_weights[k]).abs().max().item() for k in initial)
        seen["moved"] = max((stepped[k] - initial[k]).abs().max().item() for k in initial)
    everyone = [None] * ranks.world_size
    torch.distributed.all_gather_object(everyone, seen)
    if ranks.is_main:
        Path(folder, "seen.json").write_text(json.dumps(everyone))
    remove_shared_buffers(int(os.environ["MASTER_PORT"]))
    stop_process()


if __name__ == "__main__":
    main(sys.argv[1])
