"""The DeepSpeed engine from the config: what the yaml of `deepspeed/` says plus what the trainer computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import deepspeed
import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam
from deepspeed.utils import set_z3_leaf_module
from transformers.integrations import HfDeepSpeedConfig

from cut_dist.engine.activations import keep_what_fits
from cut_dist.engine.compiled_ops import load_op
from cut_dist.engine.launch import Ranks
from cut_dist.model.attention import choose_backend
from cut_dist.model.head import CutModel
from cut_dist.model.layers import decoder_layers
from cut_dist.model.load import choose_dtype, load_causal_lm
from cut_dist.model.resolve import resolve_model
from cut_dist.objective_options import loss_options, training_options

if TYPE_CHECKING:
    from cut_dist.config import Config, TrainConfig


def deepspeed_config(cfg: Config, dtype: torch.dtype) -> dict:
    """DeepSpeed's config: the group's keys, and those that follow from ours.

    The accumulation is ours: micro-batches differ in number from step to step, so DeepSpeed sees steps of one
    micro-batch and is told where the boundary is. Gradients accumulate in fp32 whatever the dtype, but for stage 0,
    where DeepSpeed offers that only for fp32 models.
    """
    bf16 = dtype == torch.bfloat16
    computed = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": cfg.train.max_grad_norm,
        "bf16": {"enabled": bf16},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
    defaults = {"data_types": {"grad_accum_dtype": "fp32"}} if bf16 and engine_stage(cfg.deepspeed) > 0 else {}
    return {**defaults, **cfg.deepspeed, **computed}


def engine_stage(ds_config: Mapping) -> int:
    """The ZeRO stage of a DeepSpeed config; 0 where it says nothing."""
    return ds_config.get("zero_optimization", {}).get("stage", 0)


def offload_device(ds_config: Mapping, what: str) -> str:
    """Where a DeepSpeed config puts "optimizer" or "param": "cpu", "nvme", or "none" for the ranks' own devices."""
    return (ds_config.get("zero_optimization", {}).get(f"offload_{what}") or {}).get("device", "none")


def build_engine(cfg: Config, ranks: Ranks):
    """Load the model and wrap it. Under ZeRO-3 the weights are partitioned while they are loaded.

    Returns:
        The DeepSpeed engine; `engine.module` is a `CutModel`, on which an evaluation or `generate` may be run.
    """
    dtype = choose_dtype(cfg.train.precision, ranks.device)
    ds_config = deepspeed_config(cfg, dtype)
    partition_on_load = engine_stage(ds_config) == 3 and cfg.model.random_init is None
    if cfg.model.name_or_path is not None:
        resolve_model(cfg.model.name_or_path, cfg.model.revision)  # a conversion must not see its weights partitioned
    # transformers looks for this object through a weak reference while it loads
    hf_config = HfDeepSpeedConfig(ds_config) if partition_on_load else None
    causal_lm = load_causal_lm(cfg.model, dtype=dtype, seed=cfg.seed)
    del hf_config
    model = CutModel(
        causal_lm,
        **loss_options(cfg.objective),
        in_training=training_options(cfg.objective),
        attention=choose_backend(cfg.model.attention, ranks.device, dtype),
    )
    optimizer = make_optimizer(model, cfg.train, on_host=offload_device(ds_config, "optimizer") in ("cpu", "nvme"))
    if "nvme" in (offload_device(ds_config, "optimizer"), offload_device(ds_config, "param")):
        load_op("AsyncIOBuilder")
    for layer in decoder_layers(causal_lm):
        # ZeRO-3 gathers the whole layer for its forward, both parts of a split row, and once more for its backward
        set_z3_leaf_module(layer, True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ds_config)
    if cfg.model.checkpointing == "selective":
        keep_what_fits(engine, cfg, ranks)
    return engine


def make_optimizer(model: torch.nn.Module, train: TrainConfig, *, on_host: bool) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only. `on_host`: DeepSpeed's CPU Adam, for ZeRO-Offload."""
    matrices, vectors = [], []
    for p in model.parameters():
        ndim = len(getattr(p, "ds_shape", p.shape))  # a partitioned parameter is flat
        (matrices if ndim >= 2 else vectors).append(p)
    groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    kwargs = {"lr": train.lr, "betas": tuple(train.betas), "eps": train.eps}
    if on_host:
        load_op("CPUAdamBuilder")
        return DeepSpeedCPUAdam(groups, adamw_mode=True, **kwargs)
    return torch.optim.AdamW(groups, fused=torch.cuda.is_available(), **kwargs)


def set_lr(engine, lr: float) -> None:
    """Set the learning rate of the next step, of all parameter groups."""
    for group in engine.optimizer.param_groups:
        group["lr"] = lr
