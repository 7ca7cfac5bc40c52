"""The gradients that DeepSpeed holds between backward and step: their norm before the step, and how to drop them.

DeepSpeed's own overflow handling differs by stage, dtype and version and can skip a step without a word, so
the trainer looks at the gradients itself and decides on all ranks alike. DeepSpeed offers no public way to do either
in all stages; the attribute names used here are those of 0.19.8, and tests/test_nonfinite.py holds them to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import INITIAL_MICRO_STEP_ID, DeepSpeedZeroOptimizer


def local_square_sum(engine, world_size: int) -> torch.Tensor:
    """This rank's share of the squared L2 norm of the global gradient: () float64 on the rank's device.

    Summed over all ranks it is the squared norm, and it is finite iff every element of every gradient is.
    Must be called after the backward at the accumulation boundary and before `engine.step`.
    """
    optimizer = engine.optimizer
    if isinstance(optimizer, (DeepSpeedZeroOptimizer_Stage3, DeepSpeedZeroOptimizer)):
        if engine.zero_use_cpu_optimizer():  # the gradients have left for the host; their norms were kept
            norms = [torch.as_tensor(norm).double() for norm in optimizer.norm_for_param_grads.values()]
            return torch.stack(norms).square().sum().to(engine.device) if norms else _square_sum([], engine.device)
        partitions = [g for group in optimizer.averaged_gradients.values() for g in group if g is not None]
        return _square_sum(partitions, engine.device)
    if isinstance(optimizer, BF16_Optimizer):
        full = [g for group in optimizer.fp32_groups_gradients for g in group]
    else:
        full = [p.grad for p in engine.module.parameters() if p.grad is not None]
    return _square_sum(full, engine.device) / world_size  # every rank holds the whole gradient


def step(engine) -> None:
    """Let the optimizer step on gradients that were found finite.

    Raises:
        RuntimeError: if DeepSpeed skipped the step all the same, which would go unnoticed otherwise.
    """
    engine.step()
    if not engine.was_step_applied():
        raise RuntimeError("DeepSpeed skipped a step of finite loss and gradients; is its version 0.19.8 or newer?")


def discard(engine) -> None:
    """Drop the accumulated gradients, so that the next step starts from none; parameters and moments stay."""
    optimizer = engine.optimizer
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        optimizer._pre_step()  # the part of step() that resets the accumulation state
        optimizer._overflow_clean_up(optimizer.loss_scale)
    elif isinstance(optimizer, DeepSpeedZeroOptimizer):
        optimizer.micro_step_id = INITIAL_MICRO_STEP_ID
        optimizer.zero_grad(set_to_none=True)
        optimizer._release_preflattened_grad_buffers()
        if optimizer.cpu_offload:
            optimizer._offload_accumulated_param_ids = set()
            optimizer.reset_cpu_buffers()
        else:
            for group in optimizer.averaged_gradients:
                optimizer.averaged_gradients[group] = None
                optimizer.all_grad_tensors[group] = None
    else:
        optimizer.zero_grad()
        engine.zero_grad()


def _square_sum(tensors: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    if not tensors:
        return torch.zeros((), dtype=torch.float64, device=device)
    return torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float32)).double().square().sum()
