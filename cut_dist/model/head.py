"""The CUT head and the module that DeepSpeed wraps: packed contexts in, loss out, in one forward."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from cut_dist.data.packing import PackedBatch, PackedPairs
from cut_dist.kernels.cut_loss import CutTokenLoss
from cut_dist.kernels.fused_linear_cut import fused_linear_cut
from cut_dist.model.attention import Segments
from cut_dist.model.supported import check_head


class CutHead(nn.Module):
    """Takes the place of `lm_head` and owns its weight (V, D), tied or not.

    Given a batch it computes the loss from hidden states without ever holding the logits of all rows; without one it
    is the plain projection, so that `generate` works. The loss must be computed inside the engine's forward by the
    module that owns the weight, or ZeRO-3 has partitioned the weight away by then.
    """

    def __init__(self, weight: nn.Parameter, measured: Mapping[str, Any], trained: Mapping[str, Any]):
        super().__init__()
        self.weight = weight
        self.measured, self.trained = dict(measured), dict(trained)  # arguments of the loss in an evaluation, a step

    def forward(self, hidden: torch.Tensor, batch: PackedBatch | None = None) -> torch.Tensor | CutTokenLoss:
        """hidden (T, D) with a batch → CutTokenLoss; hidden (…, D) without → logits (…, V)."""
        if batch is None:
            return F.linear(hidden, self.weight)
        if isinstance(batch, PackedPairs):
            return self._preference(hidden[batch.rows_instruction], batch)
        fake = None if batch.rows_fake is None else hidden[batch.rows_fake]
        return fused_linear_cut(
            hidden[batch.rows_instruction],
            hidden[batch.rows_authentic],
            fake,
            self.weight,
            batch.labels,
            token_weight=batch.token_weight,
            **(self.trained if self.training else self.measured),
        )

    def _preference(self, rows: torch.Tensor, batch: PackedPairs) -> CutTokenLoss:
        """DPO on sums over tokens: Σ over pairs of share · −log σ(β·margin).

        Its gradient is that of a likelihood whose weights are known once the margins are: each row's log p gets
        ∓ share·β·σ(−β·margin). So the rows go through the head twice, first without a gradient.

        Args:
            rows: (R, D) hidden states that predict `batch.labels`.
        """
        likelihood = partial(fused_linear_cut, rows, None, None, self.weight, batch.labels, **self.measured)
        with torch.no_grad():
            margin = batch.beta * batch.margins(likelihood().logp)
            loss = (batch.pair_weight * F.softplus(-margin)).sum()
            pull = batch.pair_weight * batch.beta * torch.sigmoid(-margin)
        out = likelihood(token_weight=batch.row_sign * pull[batch.row_pair])
        same_gradient = out.loss - out.loss.detach() + loss
        return out._replace(loss=same_gradient)


class CutModel(nn.Module):
    """A Hugging Face causal language model whose forward is one packed micro-batch of CUT.

    Args:
        causal_lm: any decoder with a bias-free `lm_head`; it keeps its state-dict names.
        lam, alpha, gamma: λ, α, γ of paper eq. 5 and 6.
        attention: a key of `attention.BACKENDS`.
        lam_instruction, floor: λ₂ and σ of DualCUT, as for `fused_linear_cut`.
        in_training: arguments of `fused_linear_cut` that differ in training mode, for an ablation.

    Raises:
        UnsupportedModel: the output layer is not the plain product that the head computes.
    """

    def __init__(
        self,
        causal_lm: PreTrainedModel,
        *,
        lam: float,
        alpha: float,
        gamma: float,
        attention: str,
        lam_instruction: float | None = None,
        floor: float = 0.0,
        in_training: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        check_head(causal_lm)
        self.causal_lm = causal_lm
        self.attention = attention
        weight = causal_lm.get_output_embeddings().weight
        loss = {"lam": lam, "alpha": alpha, "gamma": gamma, "lam_instruction": lam_instruction, "floor": floor}
        causal_lm.set_output_embeddings(CutHead(weight, measured=loss, trained=loss | dict(in_training or {})))

    def forward(self, batch: PackedBatch) -> CutTokenLoss:
        """Loss and token probabilities of one packed micro-batch on the model's device."""
        segments = Segments(batch.cu_seqlens, batch.segment_lengths, self.attention, batch.num_no_grad_segments)
        decoded = self.causal_lm.get_decoder()(
            input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, segments=segments
        )
        return self.causal_lm.get_output_embeddings()(decoded.last_hidden_state[0], batch)
