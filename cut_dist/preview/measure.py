"""What the model says of each response token: the trainer's own forward on one device, without gradients."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cut_dist.config import Config
from cut_dist.data.examples import Example
from cut_dist.data.packing import pack_examples
from cut_dist.evaluate import TokenRecord, split_records
from cut_dist.model.attention import choose_backend
from cut_dist.model.head import CutModel
from cut_dist.model.load import choose_dtype, load_causal_lm
from cut_dist.objective_options import loss_options

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """One example through the model, N response tokens.

    Attributes:
        record: its probabilities and inappropriate tokens, as an evaluation records them.
        loss_instruction, loss_authentic: (N,) float32, the two parts of the loss of each token.
    """

    record: TokenRecord
    loss_instruction: np.ndarray
    loss_authentic: np.ndarray


@torch.no_grad()
def measure(cfg: Config, examples: Sequence[Example]) -> list[Measured]:
    """Load the model and run it on each example by itself, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = choose_dtype(cfg.train.precision, device)
    log.info("loading %s in %s on %s", cfg.model.name_or_path or "a random model", dtype, device)
    model = CutModel(
        load_causal_lm(cfg.model, dtype=dtype, seed=cfg.seed),
        **loss_options(cfg.objective),
        attention=choose_backend(cfg.model.attention, device, dtype),
    )
    model.to(device).eval()
    measured = []
    for example in examples:
        batch = pack_examples([example], [1 / len(example.response_ids)], cfg.objective.contrast)
        out = model(batch.to(device))
        [record] = split_records(batch, out, [example]).values()
        measured.append(Measured(record, out.loss_instruction.cpu().numpy(), out.loss_authentic.cpu().numpy()))
    return measured
