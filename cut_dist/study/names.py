"""What the rows of the study are called where people read them."""

from __future__ import annotations

import re

_NAMES = {
    "base": "base model", "sft": "SFT on Align-P", "forward_prediction": "forward prediction", "hindsight": "hindsight",
    "ilf_mle": "ILF-MLE", "ilf_dpo": "ILF-DPO", "cut": "CUT", "l1": "without L1", "l2_align_p": "without L2 of Align-P",
    "l2_align_n": "without L2 of Align-N", "detection": "without detection", "dynamic_weight": "without dynamic weight",
    "hindsight_like_cut": "hindsight, as CUT is tuned", "online": "online rounds", "offline": "one offline training",
    "rounds": "CUT in rounds", "unread-praise": "praise never read",
}  # fmt: skip
_PATTERNS = (  # of a row's whole name → its text
    (re.compile(r"cut_round(\d+)"), r"CUT, \1 rounds"),
    (re.compile(r"(\w+)-lam([\d.]+)"), r"contrast=\1, λ = \2"),
    (re.compile(r"gamma([\d.]+)-alpha([\d.]+)"), r"γ = \1, α = \2"),
    (re.compile(r"ratio([\d.]+)"), r"\1 Align-P for each Align-N"),
)


def name_of(row: str) -> str:
    """The name of a row, such as "CUT, precise" of `cut-precise`; its own where it has none."""
    if row in _NAMES:
        return _NAMES[row]
    for pattern, text in _PATTERNS:
        if match := pattern.fullmatch(row):
            return match.expand(text)
    for separator in ("-", " "):  # a method and a quality of judgments; "smollm2" and a method
        head, found, tail = row.partition(separator)
        if found and (head in _NAMES or separator == " "):
            return f"{_NAMES.get(head, head)}, {name_of(tail)}"
    return row
