"""What outlives the process: checkpoints of all ranks, random states, and the full weights gathered on rank 0."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist

from cut_dist import checkpoint
from cut_dist.engine import MainRankError
from cut_dist.engine.launch import Ranks, broadcast_object
from cut_dist.lineage import package_versions

log = logging.getLogger(__name__)

ENGINE_TAG = "engine"  # the folder of DeepSpeed's own files inside a checkpoint


def save_checkpoint(engine, ranks: Ranks, root: Path, step: int, keep_last: int) -> None:
    """Stage, commit, then prune (cut_dist/checkpoint.py). A collective: all ranks call it.

    Args:
        root: the run's `checkpoints` folder.
        step: optimizer steps done.
        keep_last: how many committed checkpoints to keep.

    Raises:
        MainRankError: on all ranks, if there is no room, a rank can't read back its shards, or rank 0 can't commit.
        OSError: on the rank that could not write its shard, which ends the job. What was committed before stays.
    """
    needed = checkpoint_size(engine)

    def begin():
        checkpoint.require_free_space(root, needed)
        checkpoint.begin_stage(root)

    on_main(ranks, begin, f"begin the checkpoint of step {step}")
    stage = root / checkpoint.STAGE
    torch.save(_rng_state(), stage / f"rng_rank{ranks.rank:05d}.pt")
    engine.save_checkpoint(str(stage), tag=ENGINE_TAG, save_latest=False)
    dist.barrier()
    shares = on_every_rank(
        ranks,
        lambda: checkpoint.seal_share(stage, ranks.rank, ranks.world_size),
        f"seal the checkpoint of step {step}",
    )

    def commit():
        files = {name: entry for share in shares for name, entry in share.items()}
        facts = {"files": files, "world_size": ranks.world_size, "versions": package_versions()}
        checkpoint.commit_stage(root, step, **facts)
        checkpoint.prune(root, keep_last)

    on_main(ranks, commit, f"commit the checkpoint of step {step}")


def checkpoint_size(engine) -> int:
    """Bytes that a checkpoint of all ranks takes: the weights, and fp32 master weights and two moments of each."""
    parameters = list(engine.module.parameters())
    return sum(getattr(p, "ds_numel", p.numel()) * (p.element_size() + 12) for p in parameters)


def load_checkpoint(engine, ranks: Ranks, path: Path) -> None:
    """Load a verified checkpoint into a fresh engine, random states included. A collective.

    Raises:
        RuntimeError: if DeepSpeed loads nothing from it.
    """
    loaded, _ = engine.load_checkpoint(str(path), tag=ENGINE_TAG)
    if loaded is None:
        raise RuntimeError(f"{path} holds no DeepSpeed checkpoint that this engine can load")
    _set_rng_state(torch.load(path / f"rng_rank{ranks.rank:05d}.pt", weights_only=True))


def full_state_dict(engine, ranks: Ranks) -> dict[str, torch.Tensor]:
    """All weights under their Hugging Face names, on rank 0's host memory; empty on the other ranks. A collective.

    One parameter is gathered at a time, so a device never holds more than the largest one besides its share.
    """
    model = engine.module.causal_lm
    state = {}
    for name, tensor in _persistent_tensors(model):
        partitioned = hasattr(tensor, "ds_id")
        with deepspeed.zero.GatheredParameters([tensor]) if partitioned else nullcontext():
            if ranks.is_main:
                state[name] = tensor.detach().cpu().clone()
    return state


def _persistent_tensors(model):
    yield from model.named_parameters()  # a tied weight comes once
    saved = model.state_dict().keys()
    yield from ((name, b) for name, b in model.named_buffers() if name in saved)


def on_main(ranks: Ranks, action: Callable[[], Any], what: str) -> Any:
    """Run `action` on rank 0; if it fails, fail on every rank with the same sentence. A collective.

    Returns:
        What it gave, on all ranks.
    """
    result, problem = broadcast_object(_attempt(ranks, action, what) if ranks.is_main else None, ranks)
    if problem:
        raise MainRankError(problem)
    return result


def on_every_rank(ranks: Ranks, action: Callable[[], Any], what: str) -> list[Any]:
    """Run `action` on each rank; if it fails on one, fail on every rank with the same sentence. A collective.

    Returns:
        What each rank's `action` gave, by rank, on all of them.
    """
    everyone: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(everyone, _attempt(ranks, action, what))
    for _, problem in everyone:
        if problem:
            raise MainRankError(problem)
    return [result for result, _ in everyone]


def _attempt(ranks: Ranks, action: Callable[[], Any], what: str) -> tuple[Any, str | None]:
    """What `action` gives, or why it failed."""
    try:
        return action(), None
    except Exception as error:  # any: the other ranks wait for the word
        log.debug("%s", what, exc_info=True)
        return None, f"rank {ranks.rank} could not {what}: {error or type(error).__name__}"


def _rng_state() -> dict:
    kind, keys, pos, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), pos, has_gauss, cached),
    }


def _set_rng_state(state: dict) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))
