"""`model.checkpointing=selective`: as many decoder layers keep their activations as the memory has room for.

The choice changes time and memory only: a layer that is computed twice gives the same bits (tests/test_layers.py), so a
run may go on with another one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch import nn

from cut_dist.config import Config
from cut_dist.data.examples import Example
from cut_dist.data.packing import CONTRASTS, pack_examples
from cut_dist.engine.launch import Ranks, local_size
from cut_dist.model.layers import decoder_layers
from cut_dist.objective_options import packing_options
from cut_dist.throughput import GIB

log = logging.getLogger(__name__)

_PROBE_TOKENS = 128
# Share of the memory left alone: reduction buckets, chunks of logits, fragments. An estimate, not measured on a GPU.
_MARGIN = 0.1


def keep_what_fits(engine, cfg: Config, ranks: Ranks) -> None:
    """Let the last layers keep their activations, as many as fit; the others stay checkpointed. A collective.

    The last ones, because the backward frees them first: their memory is there for the layers that are computed again.
    The choice follows from the memory of the fullest rank, the model, the ZeRO stage, the number of ranks and
    `train.micro_batch_tokens`; it is the same on all ranks.
    """
    layers = decoder_layers(engine.module.causal_lm)
    # an example that is longer than the budget gets a micro-batch of its own
    packing = packing_options(cfg.objective)
    no_grad = packing["no_grad"] if cfg.model.context_split == "auto" else ()
    num_contexts = len(set(CONTRASTS[packing["contrast"]]) - set(no_grad))
    tokens = max(cfg.train.micro_batch_tokens, num_contexts * cfg.data.max_length)
    saved, given = (np.array(n) * tokens for n in bytes_per_token(engine, layers, ranks))
    room = torch.tensor(room_bytes(engine, ranks), dtype=torch.int64, device=ranks.device)
    dist.all_reduce(room, dist.ReduceOp.MIN)
    kept = layers_that_fit(saved, given, room.item())
    for layer in layers[len(layers) - kept :]:
        layer.forward.checkpointed = False
    if ranks.is_main:
        log.info(
            "activation checkpointing: %d of %d layers; the fullest rank has %.2f GiB for activations, for %d tokens a "
            "layer keeps %.2f GiB, or %.2f GiB with checkpointing",
            len(layers) - kept, len(layers), room.item() / GIB, tokens, max(saved) / GIB, max(given) / GIB,
        )  # fmt: skip


def layers_that_fit(saved: Sequence[int], given: Sequence[int], room: int) -> int:
    """How many layers, counted from the last, can keep their activations.

    Args:
        saved: bytes that each layer keeps for its backward.
        given: bytes of its input, all that it keeps with checkpointing.
        room: bytes for all layers, and for the activations of the one in its backward and their gradients.
    """
    needed = sum(given) + 2 * max(saved)
    for kept in range(len(saved)):
        needed += saved[-1 - kept] - given[-1 - kept]
        if needed > room:
            return kept
    return len(saved)


@torch.no_grad()
def bytes_per_token(engine, layers: Sequence[nn.Module], ranks: Ranks) -> tuple[list[float], list[float]]:
    """What autograd keeps of a token in each layer, and the size of the layer's input; measured. A collective.

    Weights, and what all layers are given alike (rotations), are not counted.
    """
    saved, given = [], []

    def measure(layer: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook. It comes after DeepSpeed's own, so the layer's weights are there."""
        hidden = args[0].detach().requires_grad_()
        shared = [x for value in kwargs.values() for x in (value if isinstance(value, tuple) else (value,))]
        uncounted = {x.untyped_storage().data_ptr() for x in (*layer.parameters(), *shared) if torch.is_tensor(x)}
        kept: dict[int, int] = {}

        def keep(x: torch.Tensor) -> torch.Tensor:
            if x.untyped_storage().data_ptr() not in uncounted:
                kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            # the graph lives as long as its output, so no two saved tensors can have had the same address
            out = layer.forward.compute(hidden, *args[1:], **kwargs)
        saved.append(sum(kept.values()) / _PROBE_TOKENS)
        given.append(hidden.nbytes / _PROBE_TOKENS)
        del out

    hooks = [layer.register_forward_pre_hook(measure, with_kwargs=True) for layer in layers]
    prompt, response = np.zeros(_PROBE_TOKENS, dtype=np.int32), np.zeros(1, dtype=np.int32)
    probe = Example("probe", False, {"instruction": prompt}, response)
    engine(pack_examples([probe], [1.0], "instruction").to(ranks.device))
    for hook in hooks:
        hook.remove()
    return saved, given


def room_bytes(engine, ranks: Ranks) -> int:
    """Bytes on this rank's device for activations, beside the model's state, gathered weights and the head."""
    if ranks.device.type == "cuda":
        reserved, used = torch.cuda.memory_reserved(ranks.device), torch.cuda.memory_allocated(ranks.device)
        total = torch.cuda.mem_get_info(ranks.device)[0] + reserved
    else:
        used = psutil.Process().memory_info().rss
        total = psutil.virtual_memory().available // local_size() + used
    # some optimizers make their states in the first step, and Linux counts memory only once it is written
    used = max(used, state_bytes(engine, ranks.world_size))
    return int(total * (1 - _MARGIN)) - used - working_bytes(engine)


def state_bytes(engine, world_size: int) -> int:
    """Weights, fp32 sums of gradients, and optimizer states that a rank holds on its device."""
    total = 0
    elsewhere = engine.zero_use_cpu_optimizer() and engine.device.type != "cpu"
    for p in engine.module.parameters():
        optimizer = 8 if p.element_size() == 4 else 12  # two moments, and fp32 weights where the model's are not
        parts = [(3, p.element_size()), (2, 4), (1, optimizer)]  # spread over the ranks from this stage on, bytes
        parts = parts[:1] if elsewhere else parts
        shares = (size / (world_size if engine.zero_optimization_stage() >= stage else 1) for stage, size in parts)
        total += _numel(p) * sum(shares)
    return int(total)


def working_bytes(engine) -> int:
    """The head's gradient in fp32 and a chunk's part of it; under ZeRO-3 the weights that are gathered at a time."""
    head, parameters = engine.module.causal_lm.get_output_embeddings().weight, engine.module.parameters()
    gathered = 0
    if engine.zero_optimization_stage() == 3:
        gathered = min(sum(map(_numel, parameters)), engine.zero_max_live_parameters())
    return gathered * head.element_size() + _numel(head) * (4 + head.element_size())


def _numel(p: nn.Parameter) -> int:
    return getattr(p, "ds_numel", p.numel())
