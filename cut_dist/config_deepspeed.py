"""What the `deepspeed` section may hold: DeepSpeed's own keys, less those that follow from ours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from cut_dist.config_check import ConfigError, require
from cut_dist.wording import nearest

# DeepSpeed's keys that follow from ours: two places for one number would let them disagree.
COMPUTED_BY_US = {
    "train_batch_size": "set train.global_batch_size",
    "train_micro_batch_size_per_gpu": "micro-batches are packed by tokens, so set train.micro_batch_tokens",
    "gradient_accumulation_steps": "it follows from train.global_batch_size and train.micro_batch_tokens",
    "gradient_clipping": "set train.max_grad_norm",
    "optimizer": "set train.lr, train.betas, train.eps and train.weight_decay",
    "scheduler": "set train.schedule and train.warmup_steps",
    "bf16": "set train.precision",
    "bfloat16": "set train.precision",
    "fp16": "set train.precision; float16 is not offered",
    "amp": "set train.precision",
    "steps_per_print": "the trainer reports its own progress",
    "zero_allow_untested_optimizer": "it is always true",
}

# Known keys of the top level, to recognise a misspelt one: DeepSpeed checks the keys inside its sections, but
# ignores a whole section that it doesn't know.
KNOWN = (
    "activation_checkpointing",
    "aio",
    "checkpoint",
    "comms_logger",
    "communication_data_type",
    "compile",
    "data_types",
    "disable_allgather",
    "dump_state",
    "flops_profiler",
    "gradient_predivide_factor",
    "memory_breakdown",
    "prescale_gradients",
    "sparse_gradients",
    "torch_autocast",
    "wall_clock_breakdown",
    "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)


def refuse_computed(key: str) -> None:
    """Raise a `ConfigError` with the remedy if `deepspeed.<key>` follows from our own keys."""
    if key in COMPUTED_BY_US:
        raise ConfigError(f"'deepspeed.{key}' is computed for you: {COMPUTED_BY_US[key]}.")


def check_deepspeed(section: Mapping[str, Any]) -> None:
    """Refuse keys that we compute, misspelt sections, a missing ZeRO stage and NVMe offload without a folder.

    Raises:
        ConfigError: names the key and what to set in its place.
    """
    for key in section:
        refuse_computed(key)
        match = None if key in KNOWN else nearest(key, KNOWN)
        if match is not None and difflib.SequenceMatcher(None, key, match).ratio() > 0.8:
            raise ConfigError(f"There is no key 'deepspeed.{key}'; did you mean 'deepspeed.{match}'?")
    zero = section.get("zero_optimization")
    place = "deepspeed.zero_optimization"
    require(isinstance(zero, Mapping), place, zero, "must be a section of DeepSpeed's ZeRO keys")
    stage = zero.get("stage")
    require(type(stage) is int and 0 <= stage <= 3, f"{place}.stage", stage, "must be 0, 1, 2 or 3")
    for part in ("offload_optimizer", "offload_param"):
        offload = zero.get(part) or {}
        require(isinstance(offload, Mapping), f"{place}.{part}", offload, "must be a section of keys")
        named = offload.get("device") != "nvme" or bool(offload.get("nvme_path"))
        remedy = "device nvme needs a folder on a local NVMe disk"
        require(named, f"{place}.{part}.nvme_path", offload.get("nvme_path"), remedy)
