"""Jobs of a sweep on this machine: the ranks of each are children of this process, on GPUs or cores of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cut_dist.config import ConfigError, SweepConfig
from cut_dist.process import free_port
from cut_dist.sweep.ends import Ends, verdict
from cut_dist.sweep.folder import COMPOSED_FILE, JobRecord
from cut_dist.sweep.plan import Job
from cut_dist.sweep.rank_process import RankProcess, rank_env


class Machine:
    """Shares this machine's GPUs (or CPU cores) out among jobs.

    Args:
        settings: how many jobs at a time, of how many ranks.

    Raises:
        ConfigError: there are not so many GPUs.
    """

    def __init__(self, settings: SweepConfig):
        gpus, jobs = visible_gpus(), settings.jobs_at_a_time
        ranks = settings.ranks_per_job or max(1, len(gpus) // jobs)
        if gpus and ranks * jobs > len(gpus):
            raise ConfigError(
                f"sweep.jobs_at_a_time={jobs} with {ranks} ranks each need {ranks * jobs} GPUs, and this machine shows "
                f"{len(gpus)}: lower sweep.jobs_at_a_time or sweep.ranks_per_job."
            )
        self.ranks = ranks
        self._free = [gpus[i * ranks : (i + 1) * ranks] for i in range(jobs)]
        self._threads = max(1, len(os.sched_getaffinity(0)) // (ranks * jobs))
        self._ports: set[int] = set()

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    def start(self, job: Job, command: Sequence[str]) -> LocalJob:
        """Start a job's ranks. `command` runs one; the job's composed configuration is added to it."""
        gpus, port = self._free.pop(0), free_port(taken=self._ports)
        self._ports.add(port)
        shared = {"OMP_NUM_THREADS": str(self._threads)} if "OMP_NUM_THREADS" not in os.environ else {}
        if gpus:
            shared["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        started = LocalJob(job, self.ranks, gpus, port)
        for rank in range(self.ranks):
            env = rank_env(rank, rank, self.ranks, self.ranks, "127.0.0.1", port) | shared
            started.processes.append(
                RankProcess([*command, f"--config-file={job.folder / COMPOSED_FILE}"], env, job.folder)
            )
        return started

    def give_back(self, job: LocalJob) -> None:
        """Let the next job have what an ended one had."""
        self._free.append(job.gpus)
        self._ports.discard(job.port)


class LocalJob:
    """A job that runs: one `deepspeed` process group, of processes that this one has started itself."""

    def __init__(self, job: Job, ranks: int, gpus: list[str], port: int):
        self.job, self.gpus, self.port = job, gpus, port
        self.processes: list[RankProcess] = []
        self.record = JobRecord(job, ranks)
        self._ends = Ends(ranks)
        self._stop_asked = self._killed = False

    def poll(self) -> tuple[str, int, str | None] | None:
        """Status, exit code and reason (see `ends.verdict`) once all ranks have ended; None before."""
        for process in self.processes:
            if end := process.poll():
                self._ends.add(end)
        if self._ends.complete:
            return verdict(self._ends, self.job.folder, self._stop_asked)
        if self._ends.overdue and not self._killed:
            self._killed = True
            self.kill("killed, because another rank had ended")
        return None

    def ask_to_stop(self) -> None:
        """Let it save and end; asked again it changes nothing."""
        if not self._stop_asked:
            self._stop_asked = True
            for process in self.processes:
                process.ask_to_stop()

    def kill(self, reason: str) -> None:
        for process in self.processes:
            process.kill(reason)


def train_command() -> list[str]:
    """Runs one rank: launch/train.py, which lies beside launch/sweep.py."""
    return [sys.executable, "-u", str(Path(sys.argv[0]).resolve().with_name("train.py"))]


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name; empty where there is no GPU, or DS_ACCELERATOR=cpu leaves them alone."""
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device.strip() for device in chosen.split(",") if device.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    return [str(i) for i in range(told.stdout.count("GPU "))] if told.returncode == 0 else []
