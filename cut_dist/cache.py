"""Where on this machine what is made once is kept: prepared data, converted models."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root(folder: str | None = None) -> Path:
    """The folder given, else $CUT_DIST_CACHE, else ~/.cache/cut_dist; `~` is the user's home in each."""
    return Path(folder or os.environ.get("CUT_DIST_CACHE") or "~/.cache/cut_dist").expanduser()
