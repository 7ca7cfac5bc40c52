"""Work for the next step, done in a thread while this step computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")


def made_ahead(make: Callable[[int], Made], steps: range) -> Iterator[Made]:
    """Yield `make(step)` for each step, computed by a thread while the caller is busy with the step before.

    One step ahead and no more. What `make` raises is raised here at its own step, with its traceback.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        upcoming = None
        for step in steps:
            current = upcoming or thread.submit(make, step)
            made = current.result()
            following = step + steps.step
            upcoming = thread.submit(make, following) if following in steps else None
            yield made
