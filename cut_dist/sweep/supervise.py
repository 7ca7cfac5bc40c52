"""`-m` under a launcher of ranks: this process stays, and each job is a fresh child of it, on all ranks in step.

The launcher has started this script once a rank. None of these processes imports torch or touches an accelerator:
rank 0 composes the jobs and leads, the others follow (meeting.py), and a job is one child of each with the same rank
and a port of its own. So whatever a job holds is given back when it ends, and a job that fails takes no other along.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from cut_dist.config import ConfigError, SweepConfig
from cut_dist.config_check import require
from cut_dist.process import StopSignal, free_port
from cut_dist.run_folder import RunLock
from cut_dist.sweep.ends import End, Ends, verdict
from cut_dist.sweep.folder import COMPOSED_FILE, JobRecord, create_folders, record_plan, stop_asked
from cut_dist.sweep.meeting import Follower, Leader, Lost
from cut_dist.sweep.plan import Job, Request, Sweep, command_line, plan
from cut_dist.sweep.progress import Progress
from cut_dist.sweep.rank_process import RankProcess, rank_env

TICK_S = 0.2
_HANG_UP_S = 15.0  # for the other supervisors to end, before the exit of this one makes the launcher end them
_STOP_S = 60.0  # for a job whose leader is gone to save, if its other ranks can

log = logging.getLogger(__name__)


def supervise(request: Request) -> int:
    """Run a sweep as one rank of it.

    Returns:
        Rank 0: 0 if all jobs are finished, 1 if some failed, 75 if the sweep was stopped. Another rank: 0 once rank 0
        has sent it home, so that the launcher does not take its exit for a failure; 1 if rank 0 is gone.
    """
    if os.environ.get("TORCHELASTIC_RUN_ID"):
        raise ConfigError(
            "-m does not work under torchrun, which keeps MASTER_PORT for itself: start it with deepspeed, "
            "or use python launch/sweep.py."
        )
    stop = StopSignal(interrupt=True)
    if os.environ.get("RANK", "0") != "0":
        return _Follow(stop).run()
    sweep = plan(request)
    _require_own_settings(sweep.settings)
    create_folders(sweep)
    with RunLock(sweep.folder):
        record_plan(sweep)
        return _Lead(sweep, stop).run()


def _require_own_settings(settings: SweepConfig) -> None:
    """Raise a ConfigError where the command asks for what only launch/sweep.py does."""
    for key in ("jobs_at_a_time", "ranks_per_job", "cluster"):
        value, unset = getattr(settings, key), getattr(SweepConfig(), key)
        remedy = "is for python launch/sweep.py; launch/train.py -m trains one job after the other on all ranks"
        require(value == unset, f"sweep.{key}", value, remedy)


class _Rank:
    """What this process is among the ranks, and its child of the moment."""

    def __init__(self, stop: StopSignal):
        read = os.environ.get
        self.stop, self.rank, self.world_size = stop, int(read("RANK", "0")), int(read("WORLD_SIZE", "1"))
        self.address, self.port = read("MASTER_ADDR", "127.0.0.1"), int(read("MASTER_PORT", "0"))
        words = json.dumps([command_line()[1:], self.world_size])
        self.sweep = hashlib.sha256(words.encode()).hexdigest()
        self.child: RankProcess | None = None
        self._unstarted: End | None = None

    def start(self, folder: Path, port: int) -> None:
        local = os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or "1"
        local_rank = os.environ.get("LOCAL_RANK", "0")
        env = rank_env(self.rank, int(local_rank), self.world_size, int(local), self.address, port)
        command = [sys.executable, "-u", sys.argv[0], f"--config-file={folder / COMPOSED_FILE}"]
        try:
            self.child = RankProcess(command, env, folder)
        except OSError as error:  # such as a folder that this node does not see
            self._unstarted = End(self.rank, 1, f"can't be started: {error}")

    def poll(self) -> End | None:
        """The child's end, once."""
        end, self._unstarted = self._unstarted, None
        if self.child:
            end = self.child.poll()
        if end:
            self.child = None
        return end

    def ask_to_stop(self) -> None:
        if self.child:
            self.child.ask_to_stop()

    def kill(self) -> None:
        if self.child:
            self.child.kill("killed, because another rank had ended")


class _Lead(_Rank):
    """Rank 0: decides for all."""

    def __init__(self, sweep: Sweep, stop: StopSignal):
        super().__init__(stop)
        self.plan = sweep
        self._stopped = False  # what has been heard once holds, also where STOP is removed again

    def run(self) -> int:
        progress = Progress(self.plan)
        try:
            self.meeting = Leader(self.address, self.port, self.world_size, self.sweep, self.stop_asked)
        except Lost as lost:
            log.error("%s", lost)
            return progress.end(self.stop_asked())
        lost = False
        for job in progress.waiting(self.plan.jobs):
            if self.stop_asked() or lost:
                break
            progress.started(job)
            record = JobRecord(job, self.world_size)
            try:
                ends = self._run(job)
                status, code, reason = verdict(ends, job.folder, self.stop_asked())
            except Lost as error:
                lost = True
                status, code, reason = "stopped" if self.stop_asked() else "failed", None, str(error)
            progress.ended(job, status, reason, record.ended(status, code, reason))
            if status == "failed" and self.plan.settings.on_failure == "stop":
                break
        self.meeting.dismiss({"do": "end"}, _HANG_UP_S)
        return progress.end(self.stop_asked())

    def _run(self, job: Job) -> Ends:
        """One job on all ranks. Raises Lost where a supervisor is gone; the ranks that are left have ended then."""
        ends, asked, killed = Ends(self.world_size), False, False
        port = free_port(taken={self.port})
        try:
            self.meeting.tell({"do": "start", "folder": str(job.folder), "port": port})
            self.start(job.folder, port)
            while not ends.complete:
                for rank, message in self.meeting.poll(TICK_S):
                    if "ended" in message:
                        ends.add(End(rank, message["ended"], message["reason"]))
                    self._stopped = self._stopped or "stop" in message
                if end := self.poll():
                    ends.add(end)
                if self.stop_asked() and not asked:
                    asked = True
                    self.meeting.tell({"do": "stop"})
                    self.ask_to_stop()
                if ends.overdue and not killed:
                    killed = True
                    self.meeting.tell({"do": "kill"})
                    self.kill()
        except Lost:
            with suppress(Lost):
                self.meeting.tell({"do": "kill"})
            self.kill()
            while self.child:
                self.poll()
                time.sleep(TICK_S)
            raise
        return ends

    def stop_asked(self) -> bool:
        self._stopped = self._stopped or self.stop.asked or stop_asked(self.plan.folder)
        return self._stopped


class _Follow(_Rank):
    """Another rank: does as it is told."""

    def run(self) -> int:
        told_of_stop = False
        try:
            meeting = Follower(self.address, self.port, self.rank, self.sweep, lambda: self.stop.asked)
            while True:
                for order in meeting.poll(TICK_S):
                    if order["do"] == "end":
                        return 0
                    self._obey(order)
                if end := self.poll():
                    meeting.tell({"ended": end.status, "reason": end.reason})
                if self.stop.asked and not told_of_stop:
                    told_of_stop = True
                    meeting.tell({"stop": True})
                    self.ask_to_stop()
        except Lost as lost:
            log.error("rank %d: %s", self.rank, lost)
            self._end_child()
            return 1

    def _obey(self, order: dict) -> None:
        if order["do"] == "start":
            self.start(Path(order["folder"]), order["port"])
        elif order["do"] == "stop":
            self.ask_to_stop()
        elif order["do"] == "kill":
            self.kill()

    def _end_child(self) -> None:
        self.ask_to_stop()
        deadline = time.monotonic() + _STOP_S
        while self.child and not self.poll():
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(TICK_S)
