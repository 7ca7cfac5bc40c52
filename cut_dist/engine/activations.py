"""`model.checkpointing=selective`: as many decoder layers keep their activations as the memory has room for.

Which layers they are changes time and memory only: a layer that is computed twice gives the same numbers to the last
bit (tests/test_layers.py), so a run may go on where another choice is made.
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
from cut_dist.data.packing import pack_examples
from cut_dist.engine.launch import Ranks, local_size
from cut_dist.model.layers import decoder_layers
from cut_dist.throughput import GIB

log = logging.getLogger(__name__)

_PROBE_TOKENS = 128
# Of a rank's memory left alone: reduction buckets, the head's chunks of logits, fragments. An estimate.
_MARGIN = 0.1


def keep_what_fits(engine, cfg: Config, ranks: Ranks) -> None:
    """Let the last layers keep their activations, as many as fit; the others stay checkpointed. A collective.

    The last ones, because they are the first that the backward frees: the layers that are computed again find their
    memory. The choice depends on the device's memory, what else uses it, the model, the number of ranks, the
    ZeRO stage and `train.micro_batch_tokens`, and is the same on all ranks.
    """
    layers = decoder_layers(engine.module.causal_lm)
    # an example that is longer than the budget gets a micro-batch of its own
    tokens = max(cfg.train.micro_batch_tokens, 2 * cfg.data.max_length)
    probed = saved_bytes(engine, layers, ranks)
    saved = [kept * tokens // _PROBE_TOKENS for kept, _ in probed]
    inputs = [given * tokens // _PROBE_TOKENS for _, given in probed]
    room = torch.tensor(room_bytes(engine, ranks), dtype=torch.int64, device=ranks.device)
    dist.all_reduce(room, dist.ReduceOp.MIN)
    kept = layers_that_fit(saved, inputs, room.item())
    for layer in layers[len(layers) - kept :]:
        layer.forward.checkpointed = False
    if ranks.is_main:
        log.info(
            "activation checkpointing: %d of %d layers; the fullest rank has room for %.2f GiB of activations, and a "
            "layer keeps %.2f GiB of a micro-batch of %d tokens, or %.2f GiB where it is checkpointed",
            len(layers) - kept, len(layers), room.item() / GIB, max(saved) / GIB, tokens, max(inputs) / GIB,
        )  # fmt: skip


def layers_that_fit(saved: Sequence[int], inputs: Sequence[int], room: int) -> int:
    """How many layers, counted from the last, can keep their activations.

    Args:
        saved: bytes that each layer keeps for its backward.
        inputs: bytes that it keeps where it is checkpointed.
        room: bytes for all of them, and for the layer that is in its backward: its activations and their gradients.
    """
    needed = sum(inputs) + 2 * max(saved)
    for kept in range(len(saved)):
        needed += saved[-1 - kept] - inputs[-1 - kept]
        if needed > room:
            return kept
    return len(saved)


@torch.no_grad()
def saved_bytes(engine, layers: Sequence[nn.Module], ranks: Ranks) -> list[tuple[int, int]]:
    """(bytes that autograd keeps, bytes of the input) of each layer for `_PROBE_TOKENS` tokens, measured. A collective.

    Weights, and what all layers are given alike (rotations), are not counted.
    """
    found = []

    def measure(layer: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook: it comes after DeepSpeed's own, so the weights are there."""
        hidden = args[0].detach().requires_grad_()
        shared = [x for given in kwargs.values() for x in (given if isinstance(given, tuple) else (given,))]
        uncounted = {x.untyped_storage().data_ptr() for x in [*layer.parameters(), *shared] if torch.is_tensor(x)}
        kept: dict[int, int] = {}

        def keep(x: torch.Tensor) -> torch.Tensor:
            storage = x.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return x

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out = layer.forward.compute(hidden, *args[1:], **kwargs)
        del out  # until here it kept all that was saved, so that no two had the same address
        found.append((sum(n for at, n in kept.items() if at not in uncounted), hidden.nbytes))

    hooks = [layer.register_forward_pre_hook(measure, with_kwargs=True) for layer in layers]
    prompt, response = np.zeros(_PROBE_TOKENS, dtype=np.int32), np.zeros(1, dtype=np.int32)
    probe = Example("probe", False, {"instruction": prompt}, response)
    engine(pack_examples([probe], [1.0], "instruction").to(ranks.device))
    for hook in hooks:
        hook.remove()
    return found


def room_bytes(engine, ranks: Ranks) -> int:
    """Bytes that this rank's device has for activations beside the model's state, gathered weights and the head."""
    if ranks.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(ranks.device)
        reserved, used = torch.cuda.memory_reserved(ranks.device), torch.cuda.memory_allocated(ranks.device)
    else:
        free = psutil.virtual_memory().available // local_size()
        reserved = used = psutil.Process().memory_info().rss
    total = free + reserved
    # some optimizers allocate their states at the first step, and the host's memory counts as used once written
    room = total - max(used, state_bytes(engine, ranks.world_size)) - working_bytes(engine)
    return int(room - _MARGIN * total)


def state_bytes(engine, world_size: int) -> int:
    """Weights, fp32 gradient sums and optimizer states that a rank holds on its device."""
    stage, weights = engine.zero_optimization_stage(), list(engine.module.parameters())
    total = 0
    for p in weights:
        states = 8 if p.element_size() == 4 else 12  # two moments, and fp32 weights where the model's are not
        per_element = [(p.element_size(), 3)]
        if not engine.zero_use_cpu_optimizer():
            per_element += [(4, 2), (states, 1)]
        total += sum(_numel(p) * size / (world_size if stage >= first else 1) for size, first in per_element)
    return int(total)


def working_bytes(engine) -> int:
    """Under ZeRO-3 the gathered weights; and the head's weight gradient in fp32 beside a chunk's share of it."""
    head = engine.module.causal_lm.get_output_embeddings().weight
    gathered = 0
    if engine.zero_optimization_stage() == 3:
        live = sum(_numel(p) for p in engine.module.parameters())
        gathered = min(live, engine.zero_max_live_parameters()) * head.element_size()
    return gathered + _numel(head) * (4 + head.element_size())


def _numel(p: nn.Parameter) -> int:
    return getattr(p, "ds_numel", p.numel())
