"""What the trainer gets: examples as token ids, and the account of how they came about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cut_dist.data.triplets import Reject


@dataclass(frozen=True)
class Example:
    """One triplet as token ids.

    Attributes:
        id: the triplet's id; those of a held-out file begin with "heldout/".
        is_negative: True for Align-N.
        prompt_ids: context name ("instruction"; for Align-N also "authentic" and "fake") to (prompt tokens,)
            int32.
        response_ids: (response tokens,) int32, EOS last; the same after every prompt.
        also: further terms of the same triplet, which are computed in the same micro-batch: under ilf_dpo the
            rejected response.
        reference_margin: ilf_dpo: log π_ref(chosen) − log π_ref(rejected), sums over tokens.
    """

    id: str
    is_negative: bool
    prompt_ids: dict[str, np.ndarray]
    response_ids: np.ndarray
    also: tuple[Example, ...] = ()
    reference_margin: float = 0.0

    @property
    def terms(self) -> tuple[Example, ...]:
        """The example itself and what it has `also`."""
        return (self, *self.also)


@dataclass
class Prepared:
    """A prepared data set.

    Attributes:
        train: in the order of the file.
        heldout: apart from `train`: no id and no row is in both.
        rejects: bad rows (under `data.on_bad_row=skip`) and over-long rows that were dropped.
        counts: rows_read = rejected + over_limit + overlong_dropped + heldout_not_chosen +
            align_p_downsampled_away + left_out_by_objective + kept, and kept = train + heldout; also
            overlong_trimmed, align_p and align_n (of train), heldout_align_p, heldout_align_n.
        heldout_own: held-out triplets in the form that the objective trains on, of those that it has a use for; empty
            where that is `heldout` itself (cut, judge).
        content_hash: sha256 of the ids, kinds and tokens of `train`, `heldout` and `heldout_own`.
    """

    train: list[Example]
    heldout: list[Example]
    rejects: list[Reject]
    counts: dict[str, int]
    content_hash: str
    heldout_own: list[Example] = field(default_factory=list)


def content_hash(train: Sequence[Example], heldout: Sequence[Example], heldout_own: Sequence[Example] = ()) -> str:
    """sha256 over everything that training and evaluation see of a data set, in order."""
    digest = hashlib.sha256()
    for name, examples in (("train", train), ("heldout", heldout), ("heldout_own", heldout_own)):
        for example in (term for each in examples for term in each.terms):
            parts = {**example.prompt_ids, "response": example.response_ids}
            header = [name, example.id, example.is_negative, [[key, len(ids)] for key, ids in parts.items()]]
            digest.update(json.dumps(header).encode())
            for ids in parts.values():
                digest.update(np.ascontiguousarray(ids, dtype="<i4").tobytes())
    return digest.hexdigest()
