"""What the rows of the study are called where people read them."""

from __future__ import annotations

import re

_NAMES = {
    "base": "base model", "sft": "SFT on Align-P", "forward_prediction": "forward prediction", "hindsight": "hindsight",
    "ilf_mle": "ILF-MLE", "ilf_dpo": "ILF-DPO", "cut": "CUT", "l1": "without L1", "l2_align_p": "without L2 of Align-P",
    "l2_align_n": "without L2 of Align-N", "detection": "without detection", "dynamic_weight": "without dynamic weight",
    "hindsight_like_cut": "hindsight, as CUT is tuned", "online": "online rounds", "offline": "one offline training",
    "online_like_cut": "online rounds, as CUT is tuned", "stale": "rounds on samples of the base model",
    "offline_matched": "one training, kinds as in the rounds", "rounds": "CUT in rounds",
    "cut_weights": "CUT, γ and α tuned too", "unread-praise": "praise never read",
}  # fmt: skip
_PATTERNS = (  # of a row's whole name → its text
    (re.compile(r"cut_round(\d+)"), r"CUT, \1 rounds"),
    (re.compile(r"(\w+)-lam([\d.]+)"), r"contrast=\1, λ = \2"),
    (re.compile(r"unread-praise-lam([\d.]+)"), r"praise never read, λ = \1"),
    (re.compile(r"gamma([\d.]+)-alpha([\d.]+)"), r"γ = \1, α = \2"),
    (re.compile(r"gamma([\d.]+)-alpha([\d.]+)-lam([\d.]+)"), r"γ = \1, α = \2, λ = \3"),
    (re.compile(r"ratio([\d.]+)"), r"\1 Align-P for each Align-N"),
)
_PARTS = re.compile(r"(cut|ilf_mle)-(\w+)|(smollm2) (\w+)")  # a method and a quality of judgments; a part and a method


def name_of(row: str) -> str:
    """The name of a row, such as "CUT, precise" of `cut-precise`; its own where it has none."""
    if row in _NAMES:
        return _NAMES[row]
    for pattern, text in _PATTERNS:
        if match := pattern.fullmatch(row):
            return match.expand(text)
    match = _PARTS.fullmatch(row)
    return ", ".join(name_of(part) for part in match.groups() if part) if match else row
