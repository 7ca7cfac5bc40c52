"""One process per rank: who am I, which device, how many threads, and a clean end."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from datetime import timedelta

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator

from cut_dist.engine.compiled_ops import load_op
from cut_dist.heartbeat import RankLost, first_line, is_communication_error
from cut_dist.process import die_with_parent, free_port, remove_shared_buffers

_GRACE_S = 10.0  # for PyTorch to end by its own timeout, which says more


@dataclass(frozen=True)
class Ranks:
    """This process among all: its rank, the number of ranks, and the device it computes on."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def local_size() -> int:
    """How many ranks this machine has."""
    return int(os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or 1)


def start_process(timeout_minutes: float = 30.0) -> Ranks:
    """Join the process group that the launcher describes; without a launcher, be its only rank.

    Args:
        timeout_minutes: after which a collective that some rank never joins ends the job with an error.

    Raises:
        RankLost: the ranks did not meet.
    """
    if "RANK" in os.environ:
        die_with_parent()
    else:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1", MASTER_ADDR="127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(free_port()))
    # DeepSpeed 0.19.8 calls collectives by names that torch 2.13 is renaming; nothing a user could mend
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    local_rank = int(os.environ["LOCAL_RANK"])
    accelerator = get_accelerator()
    if "OMP_NUM_THREADS" not in os.environ:  # else every rank, and its CPU Adam, would take all cores
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size()))
    if accelerator.device_name() == "cpu":
        device = torch.device("cpu")
        load_op("ShareMemCommBuilder")
    else:
        accelerator.set_device(local_rank)
        device = torch.device(accelerator.device_name(local_rank))
    _meet(timeout_minutes)
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


def stop_process() -> None:
    """Leave the process group, once all ranks are done with it."""
    dist.destroy_process_group()
    # gloo's threads let go of the last tensors a moment later; amid Python's own end that aborts the process
    time.sleep(0.1)


def broadcast_object(value, ranks: Ranks):
    """Rank 0's value, on all ranks. For decisions: rank 0 decides, all obey."""
    box = [value if ranks.is_main else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _meet(timeout_minutes: float) -> None:
    """Join the process group, or raise RankLost."""
    # where gloo's connection comes to nothing at the other end, this end waits beyond any timeout
    limit = threading.Timer(60 * timeout_minutes + _GRACE_S, _give_up, [timeout_minutes])
    limit.daemon = True
    limit.start()
    try:
        deepspeed.init_distributed(timeout=timedelta(minutes=timeout_minutes), verbose=False)
    except Exception as error:
        if not is_communication_error(error) or "EADDRINUSE" in str(error):
            raise
        raise RankLost(f"{_not_met(timeout_minutes)} PyTorch's words: {first_line(error)}") from error
    finally:
        limit.cancel()


def _give_up(timeout_minutes: float) -> None:
    """End a process whose main thread waits inside PyTorch."""
    remove_shared_buffers(int(os.environ["MASTER_PORT"]))
    print(f"error: [rank {os.environ['RANK']}] {_not_met(timeout_minutes)}", file=sys.stderr, flush=True)
    os._exit(1)


def _not_met(timeout_minutes: float) -> str:
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return (
        f"{os.environ['WORLD_SIZE']} ranks did not all meet at {place} in run.timeout_minutes={timeout_minutes:g}. "
        "Each must have started, reach that port of rank 0's host, and reach the other hosts on the network that "
        "GLOO_SOCKET_IFNAME (CPU) or NCCL_SOCKET_IFNAME (GPU) names; docs/cluster.md says how to look."
    )
