"""How well the contrast of two contexts finds the tokens that are truly wrong, as λ runs (paper eq. 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cut_dist.study.judgments import UNREAD_PRAISE
from cut_dist.study.token_records import token_records
from cut_dist.study.world import wrong_tokens

if TYPE_CHECKING:
    from cut_dist.evaluate import TokenRecord
    from cut_dist.study.lab import Lab, Sample

LAMBDAS = (0.5, 0.7, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)


def detection_curves(lab: Lab, model: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    """Precision and recall of the inappropriate tokens of wrong samples, over all their tokens, for each contrast.

    Returns:
        For "fake", "instruction" and "unread" (the fake context with praise that the model has never read) a list of
        {lam, precision, recall, f1, share} (share of tokens marked), `wrong`: the share of tokens that are truly wrong,
        and `mean_p`: the model's mean probabilities in each context of wrong and right tokens.
    """
    truth = {s.id: np.array(wrong_tokens(s.response, s.item.answer)) for s in samples if not s.right}
    rows = lab.judged(samples)
    records = [r for r in token_records(lab.cfg, lab.folder, model, rows) if r.is_negative]
    wrong = np.concatenate([truth[r.id] for r in records])
    logp, authentic, fake = (_joined(records, name) for name in ("logp", "logp_authentic", "logp_fake"))
    praised = replace(lab.cfg, objective=replace(lab.cfg.objective, fake_judgment=UNREAD_PRAISE))
    again = {r.id: r for r in token_records(praised, lab.folder, model, rows)}
    unread = _joined([again[r.id] for r in records], "logp_fake")
    mean_p = {
        kind: {
            name: float(np.exp(values[mask]).mean())
            for name, values in (("instruction", logp), ("authentic", authentic), ("fake", fake))
        }
        for kind, mask in (("wrong", wrong), ("right", ~wrong))
    }
    curves = {
        contrast: [quality(wrong, authentic - other > math.log(lam)) | {"lam": lam} for lam in LAMBDAS]
        for contrast, other in (("fake", fake), ("instruction", logp), ("unread", unread))
    }
    return {**curves, "wrong": float(wrong.mean()), "mean_p": mean_p}


def _joined(records: Sequence[TokenRecord], name: str) -> np.ndarray:
    return np.concatenate([getattr(record, name) for record in records])


def quality(wrong: np.ndarray, marked: np.ndarray) -> dict[str, float]:
    """Precision (1 where nothing is marked), recall, F1 and the share marked; both arguments (tokens,) bool."""
    hits = int((wrong & marked).sum())
    precision = hits / int(marked.sum()) if marked.any() else 1.0
    recall = hits / int(wrong.sum())
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "share": float(marked.mean())}
