"""A sweep as a SLURM job array, through submitit: a job is an element, and one task a node starts its ranks there."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from cut_dist.config import ConfigError
from cut_dist.process import StopSignal
from cut_dist.run_folder import STOP_FILE, RunLock
from cut_dist.sweep.ends import Ends, verdict
from cut_dist.sweep.folder import (
    COMPOSED_FILE,
    JobRecord,
    create_folders,
    read_job,
    record_lost,
    record_plan,
    stop_asked,
)
from cut_dist.sweep.local_jobs import train_command
from cut_dist.sweep.plan import Job, Sweep
from cut_dist.sweep.progress import Progress
from cut_dist.sweep.rank_process import RankProcess, rank_env

try:
    import submitit
except ImportError as error:
    raise ConfigError("sweep.cluster needs submitit: pip install 'cut-dist[sweep]'.") from error

TICK_S = 2.0


def submit(sweep: Sweep, stop: StopSignal) -> int:
    """Submit the jobs that are not finished, wait for them, and say what became of them.

    Returns:
        0 if all jobs are finished, 1 if some failed, 75 if the sweep was stopped.

    Raises:
        ConfigError: submitit can't do what `sweep.submitit` asks for.
    """
    nodes, ranks = _shape(sweep)
    create_folders(sweep)
    with RunLock(sweep.folder):
        record_plan(sweep)
        progress = Progress(sweep)
        waiting = progress.waiting(sweep.jobs)
        executor = _executor(sweep, nodes)
        handles = []
        if waiting:  # submitit warns of an empty array
            with executor.batch():
                handles = [executor.submit(NodeOfJob(job, ranks, train_command())) for job in waiting]
        stopped = _wait(sweep, dict(zip(handles, waiting)), stop, progress)
        return progress.end(stopped)


def _shape(sweep: Sweep) -> tuple[int, int]:
    """Nodes of a job, and ranks on each."""
    settings, asked = sweep.settings, sweep.settings.submitit or {}
    if "tasks_per_node" in asked:
        raise ConfigError("sweep.submitit.tasks_per_node is always 1, a task starts all ranks of its node: set "
                          "sweep.ranks_per_job, or sweep.submitit.gpus_per_node.")  # fmt: skip
    nodes = asked.get("nodes", 1)
    ranks = settings.ranks_per_job or nodes * max(1, asked.get("gpus_per_node", 0))
    if ranks % nodes:
        raise ConfigError(f"sweep.ranks_per_job={ranks} can't be shared out evenly to {nodes} nodes.")
    return nodes, ranks // nodes


def _executor(sweep: Sweep, nodes: int) -> submitit.AutoExecutor:
    # the nodes' tasks import this package, also from a checkout that is not installed
    root = str(Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    settings = sweep.settings
    ours = {"name": sweep.name, "nodes": nodes, "tasks_per_node": 1, "slurm_array_parallelism": settings.jobs_at_a_time,
            "slurm_srun_args": ["--kill-on-bad-exit=1"]}  # fmt: skip
    try:
        executor = submitit.AutoExecutor(folder=sweep.folder.resolve() / ".submitit", cluster=settings.cluster)
        executor.update_parameters(**{"timeout_min": 24 * 60, **(settings.submitit or {}), **ours})
    except (NameError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ConfigError(f"sweep.submitit={settings.submitit}: {' '.join(str(error).split())}") from error
    return executor


def _wait(sweep: Sweep, running: dict[submitit.Job, Job], stop: StopSignal, progress: Progress) -> bool:
    """Until all have ended; whether the sweep was stopped meanwhile."""
    stopped = closed = False
    while running:
        time.sleep(TICK_S)
        if not stopped and (stop.asked or stop_asked(sweep.folder)):
            stopped = closed = True
            _cancel_waiting(running)
        if stopped:  # those that run save and end; again and again, for a run that begins removes what it finds
            for job in running.values():
                (job.folder / STOP_FILE).touch()
        if stop.signals > 1:
            for handle in running:
                handle.cancel(check=False)
        for handle in [handle for handle in running if handle.done()]:
            job = running.pop(handle)
            record = read_job(job.folder)
            if record and record["status"] == "running":  # its node is gone, or another node's ranks have failed
                reason = f"SLURM job {handle.job_id} ended, {handle.state}; see {handle.paths.stderr}"
                record = record_lost(job, "stopped" if stopped else "failed", reason)
            if record:
                progress.ended(job, record["status"], record["reason"], record["seconds"])
            if record and record["status"] == "failed" and sweep.settings.on_failure == "stop" and not closed:
                closed = True
                _cancel_waiting(running)
    return stopped


def _cancel_waiting(running: dict[submitit.Job, Job]) -> None:
    """Take from the queue what has not begun."""
    for handle, job in running.items():
        if (read_job(job.folder) or {}).get("status") != "running":
            handle.cancel(check=False)


class NodeOfJob(submitit.helpers.Checkpointable):
    """What SLURM runs on each node of a job: its ranks there, and their end.

    Args:
        job: what it trains.
        ranks: on this node; the same on all.
        command: runs one.
    """

    def __init__(self, job: Job, ranks: int, command: list[str]):
        self._job, self._ranks, self._command = job, ranks, command
        self._processes: list[RankProcess] = []
        self._ends: Ends | None = None

    def __call__(self) -> tuple[str, int, str | None]:
        """Status, exit code and reason, as this node sees it; raises where its ranks failed, which ends the others."""
        here = submitit.JobEnvironment()
        node, ranks, folder = here.global_rank, self._ranks, self._job.folder
        port = 20000 + int(hashlib.sha256(here.job_id.encode()).hexdigest(), 16) % 12768  # the same on all nodes
        record = JobRecord(self._job, ranks * here.num_tasks) if node == 0 else None
        address = here.hostnames[0] if here.num_tasks > 1 else "127.0.0.1"
        self._ends = Ends(ranks)
        command = [*self._command, f"--config-file={folder / COMPOSED_FILE}"]
        for rank in range(ranks):
            env = rank_env(node * ranks + rank, rank, ranks * here.num_tasks, ranks, address, port)
            self._processes.append(RankProcess(command, env, folder))
        self._wait()
        outcome = verdict(self._ends, folder, (folder / STOP_FILE).exists())
        if record:
            record.ended(*outcome)
        if outcome[0] == "failed":
            raise RuntimeError(f"{self._job.name}: {outcome[2]}")
        return outcome

    def _wait(self) -> None:
        while not self._ends.complete:
            time.sleep(0.2)
            for process in self._processes:
                if end := process.poll():
                    self._ends.add(end)
            if self._ends.overdue:
                for process in self._processes:
                    process.kill("killed, because another rank had ended")

    def checkpoint(self, *args: Any, **kwargs: Any) -> submitit.helpers.DelayedSubmission:
        """SLURM is about to take the node away: save, so that the job goes on when it is started again."""
        for process in self._processes:
            process.ask_to_stop()
        self._wait()
        again = NodeOfJob(self._job, self._ranks, self._command)  # what can be pickled
        return submitit.helpers.DelayedSubmission(again, *args, **kwargs)
