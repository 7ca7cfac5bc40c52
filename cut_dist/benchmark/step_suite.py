"""suite=step: forward and backward of a model over micro-batches of real triplets; one process, no DeepSpeed.

Timed are forward and backward. The optimizer's step, the making of the batches and the clearing of the gradients are
left out for all alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cut_dist.benchmark.config import BenchmarkJobConfig
from cut_dist.benchmark.released import PaddedBatch, pad_examples, released_loss
from cut_dist.benchmark.timing import OURS, Case, Contender, Floor, SizedCase
from cut_dist.benchmark.triplets import step_examples
from cut_dist.config import ConfigError, ModelConfig
from cut_dist.data.examples import Example
from cut_dist.data.packing import CONTRASTS, PackedBatch, example_weights, pack_examples
from cut_dist.model.attention import PACKED, choose_backend
from cut_dist.model.head import CutModel
from cut_dist.model.load import load_causal_lm
from cut_dist.step_stats import model_flops
from cut_dist.throughput import ModelShape, model_shape

# of ‖x − expected‖/‖expected‖ over all gradients. In bf16 a token near the threshold may change sides, in the released
# scheme as in ours: a wrong term or a missing context gives errors near 1.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.2}


def cases(cfg: BenchmarkJobConfig, device: torch.device, dtype: torch.dtype) -> Iterator[SizedCase]:
    """The only case."""
    yield f"{cfg.step.examples} examples", partial(step_case, cfg, device, dtype)


@dataclass(frozen=True)
class Scene:
    """A model and the micro-batches that it sees: repetition i takes the i-th drawing of examples."""

    cfg: BenchmarkJobConfig
    model: CutModel
    examples: Sequence[Example]
    device: torch.device

    def draw(self, repetition: int) -> list[Example]:
        """`step.examples` of the triplets, drawn without replacement by the seed and the number of the repetition."""
        generator = np.random.default_rng([self.cfg.seed, repetition])
        chosen = generator.choice(len(self.examples), self.cfg.step.examples, replace=False)
        return [self.examples[i] for i in chosen]

    def checked(self) -> list[Example]:
        """What gradients are compared on: the first Align-N and the first Align-P example."""
        return [e for kind in (True, False) for e in [e for e in self.examples if e.is_negative == kind][:1]]

    def padded(self, examples: Sequence[Example], contrast: str) -> PaddedBatch:
        weights = example_weights(examples, self.cfg.objective.reduction)
        return pad_examples(examples, weights, contrast, self.device)

    def packed(self, examples: Sequence[Example], contrast: str) -> PackedBatch:
        weights = example_weights(examples, self.cfg.objective.reduction)
        return pack_examples(examples, weights, contrast).to(self.device)


@dataclass
class Scheme:
    """A way to compute a step: how examples become a batch, and a batch the loss."""

    scene: Scene
    contrast: str
    attention: str  # transformers' name of the attention
    make: Callable[[Sequence[Example], str], Any]
    loss: Callable[[Any], Tensor]
    batch: Any = field(default=None, init=False)

    def prepare(self, repetition: int) -> None:
        self._set_up(self.scene.draw(repetition))
        if self.scene.device.type == "cuda":  # each repetition has sizes of its own, whose first use takes longer
            self.run(repetition)
            self.scene.model.zero_grad(set_to_none=True)

    def run(self, repetition: int) -> None:
        self.loss(self.batch).backward()

    def loss_and_gradients(self) -> list[Tensor]:
        """Of the examples that are compared, on the host."""
        self._set_up(self.scene.checked())
        loss = self.loss(self.batch)
        loss.backward()
        gradients = [p.grad.cpu() for p in self.scene.model.parameters()]
        self.scene.model.zero_grad(set_to_none=True)
        return [loss.detach().cpu(), torch.cat([g.flatten() for g in gradients])]

    def _set_up(self, examples: Sequence[Example]) -> None:
        self.scene.model.causal_lm.set_attn_implementation(self.attention)
        self.scene.model.zero_grad(set_to_none=True)
        self.batch = self.make(examples, self.contrast)


def released(scene: Scene, contrast: str) -> Scheme:
    """Padded rows through transformers' own SDPA; with contrast=fake a third slot, for comparison only."""

    def loss(batch: PaddedBatch) -> Tensor:
        return released_loss(scene.model.causal_lm, batch, scene.cfg.objective)

    return Scheme(scene, contrast, "sdpa", scene.padded, loss)


def ours(scene: Scene, contrast: str) -> Scheme:
    """One packed row through `CutModel`, as the trainer does it."""
    return Scheme(scene, contrast, PACKED, scene.packed, lambda batch: scene.model(batch).loss)


def step_case(cfg: BenchmarkJobConfig, device: torch.device, dtype: torch.dtype) -> Case:
    """The released scheme and ours on one model; what is expected is the released scheme in float32."""
    model_config = choose_model(cfg, device)
    examples, data = step_examples(cfg, model_config, device)
    if len(examples) < cfg.step.examples:
        raise ConfigError(f"step.examples={cfg.step.examples}: there are only {len(examples)} triplets; lower it.")
    scene = Scene(cfg, build_model(cfg, model_config, device, dtype), examples, device)
    shape = model_shape(scene.model.causal_lm.config)
    if shape is None:
        raise ConfigError(f"suite=step can't count the FLOPs of {type(scene.model.causal_lm).__name__}; take a Llama.")
    parameters = sum(p.numel() for p in scene.model.parameters())
    name = Path(model_config.name_or_path).name if model_config.name_or_path else "Llama with random weights"
    return Case(
        suite="step",
        title=f"A step: {name}, {parameters / 1e6:.0f} M parameters, {str(dtype).removeprefix('torch.')}",
        shape={"examples": cfg.step.examples, "parameters": parameters, "checkpointing": model_config.checkpointing},
        floor=_product(scene, shape, dtype),
        contenders=contenders(scene, shape),
        expected=expected(scene),
        tolerance=TOLERANCES[dtype],
        details={"floor": "FLOPs of the useful tokens at the rate of one feed-forward product", "triplets": data},
    )


def choose_model(cfg: BenchmarkJobConfig, device: torch.device) -> ModelConfig:
    """The model section's, or on CUDA the random Llama of `step.cuda_model` if that is given."""
    if device.type != "cuda" or cfg.step.cuda_model is None:
        return cfg.model
    changes = {"name_or_path": None, "revision": None, "tokenizer": "bytes", "random_init": cfg.step.cuda_model}
    return replace(cfg.model, **changes)


def build_model(
    cfg: BenchmarkJobConfig, model_config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> CutModel:
    """The module that the trainer hands to DeepSpeed, here without it.

    Raises:
        ConfigError: for a checkpointing that only the engine can choose.
    """
    if model_config.checkpointing == "selective":
        raise ConfigError("model.checkpointing=selective: only DeepSpeed's engine can choose; use none or full.")
    # A GPU makes random weights in no time, the host in half a minute.
    with device if model_config.random_init else nullcontext():
        causal_lm = load_causal_lm(model_config, dtype=dtype, seed=cfg.seed)
    o, attention = cfg.objective, choose_backend(model_config.attention, device, dtype)
    return CutModel(causal_lm, lam=o.lam, alpha=o.alpha, gamma=o.gamma, attention=attention).to(device)


def expected(scene: Scene) -> dict[str, list[Tensor]]:
    """Loss and gradients by the released scheme in float32, for each contrast."""
    model = scene.model
    if any(p.dtype != torch.float32 for p in model.parameters()):
        model = copy.deepcopy(model).float()
    wide = replace(scene, model=model)
    return {contrast: released(wide, contrast).loss_and_gradients() for contrast in CONTRASTS}


def contenders(scene: Scene, shape: ModelShape) -> list[Contender]:
    schemes = {
        "released, instruction": released(scene, "instruction"),
        f"{OURS}, instruction": ours(scene, "instruction"),
        f"{OURS}, fake": ours(scene, "fake"),
    }
    return [
        Contender(
            name,
            scheme.run,
            computes=scheme.contrast,
            work=lambda i, c=scheme.contrast: model_flops(scene.packed(scene.draw(i), c), shape),
            tokens=lambda i, c=scheme.contrast: useful_tokens(scene.draw(i), c),
            outputs=scheme.loss_and_gradients,
            prepare=scheme.prepare,
        )
        for name, scheme in schemes.items()
    ]


def useful_tokens(examples: Sequence[Example], contrast: str) -> int:
    """Tokens of prompt (its template too) and response, each counted once per context that needs it."""
    return sum(
        len(e.prompt_ids[context]) + len(e.response_ids)
        for e in examples
        for context in (CONTRASTS[contrast] if e.is_negative else ("instruction",))
    )


def _product(scene: Scene, shape: ModelShape, dtype: torch.dtype) -> Floor:
    """A product as a layer has it: the tokens of a micro-batch through one matrix of the feed-forward."""
    tokens = useful_tokens(scene.draw(0), "instruction")
    x = torch.randn(tokens, shape.hidden, dtype=dtype, device=scene.device)
    weight = torch.randn(shape.hidden, shape.intermediate, dtype=dtype, device=scene.device)
    return Floor("product", "FLOP/s", lambda: x @ weight, 2.0 * x.numel() * shape.intermediate)
