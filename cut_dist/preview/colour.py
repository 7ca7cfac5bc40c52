"""The diverging colour scale of log p⁻ − log p⁺."""

from __future__ import annotations

import math

FULL = math.log(8)  # where the scale ends: one context finds the token eight times as likely as the other
TICKS = ("1/8", "1/4", "1/2", "1", "2", "4", "8")  # p⁻/p⁺, evenly spaced over the scale

_WHITE, _BLUE, _RED = (255, 255, 255), (111, 168, 220), (240, 122, 88)  # all light enough for black letters
_GAIN = 0.6  # below 1, so that the many small differences can be told apart


def shade(difference: float) -> tuple[int, int, int]:
    """Red where the negative judgment makes a token likelier, blue where less likely, white at 0 (and for NaN).

    Args:
        difference: log p⁻ − log p⁺ in nats.
    """
    strength = 0.0 if math.isnan(difference) else min(1.0, abs(difference) / FULL) ** _GAIN
    end = _RED if difference > 0 else _BLUE
    red, green, blue = (round(w + strength * (e - w)) for w, e in zip(_WHITE, end))
    return red, green, blue
