"""The processes that a launcher started, for work that needs no exchange of tensors. No DeepSpeed; torch on demand."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cut_dist.process import die_with_parent

_PATIENCE = timedelta(days=7)  # shares take as long as they take; a rank that ends breaks its connections at once


@dataclass(frozen=True)
class LauncherRanks:
    """This process among all, as the launcher's environment has it; without a launcher the only one."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def of_environment(cls) -> LauncherRanks:
        """Read RANK, WORLD_SIZE and their kin, as `deepspeed` and `torchrun` set them."""
        if "RANK" not in os.environ:
            return cls()
        local_size = os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or 1
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        return cls(*(int(os.environ[name]) for name in names), int(local_size))

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def joined(ranks: LauncherRanks) -> Iterator[None]:
    """Let ranks speak to each other (gloo) while the block runs. A rank that fails leaves without waiting."""
    if ranks.world_size == 1:
        yield
        return
    import torch.distributed as dist

    die_with_parent()
    dist.init_process_group("gloo", timeout=_PATIENCE)
    yield
    dist.destroy_process_group()
    time.sleep(0.1)  # gloo's threads let go a moment later; amid Python's own end that aborts the process


def from_main(value: Any, ranks: LauncherRanks) -> Any:
    """Rank 0's value, on all ranks."""
    if ranks.world_size == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_all(ranks: LauncherRanks) -> None:
    """Return once every rank has come here."""
    if ranks.world_size > 1:
        import torch.distributed as dist

        dist.barrier()
