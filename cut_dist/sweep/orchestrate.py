"""launch/sweep.py: one process, without torch, that starts each job as a process group, several at a time."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence

from cut_dist.process import StopSignal
from cut_dist.run_folder import RunLock
from cut_dist.sweep.folder import create_folders, record_plan, stop_asked
from cut_dist.sweep.local_jobs import LocalJob, Machine, train_command
from cut_dist.sweep.plan import Composer, Job, Request, Sweep
from cut_dist.sweep.progress import Progress

TICK_S = 0.2
log = logging.getLogger(__name__)


def orchestrate(request: Request) -> int:
    """Run a sweep from one process: by Hydra's grid, or as the sweeper says that `hydra/sweeper=` names.

    Returns:
        0 if all jobs are finished, 1 if some failed, 75 if the sweep was stopped.
    """
    composer = Composer(request)
    stop = StopSignal(interrupt=True)
    if composer.hydra:
        from cut_dist.sweep.sweeper import search

        return search(composer, stop)
    sweep = composer.grid()
    if sweep.settings.cluster != "here":
        from cut_dist.sweep.cluster import submit

        return submit(sweep, stop)
    create_folders(sweep)
    with RunLock(sweep.folder):
        record_plan(sweep)
        progress = Progress(sweep)
        pool = Pool(sweep, stop, progress)
        pool.run(progress.waiting(sweep.jobs))
        return progress.end(pool.stop_asked())


class Pool:
    """Runs jobs on this machine, as many at a time as there is room for.

    Args:
        sweep: whose jobs they are.
        stop: a first signal lets them save and stop, a second one kills them.
        progress: says what happens.
    """

    def __init__(self, sweep: Sweep, stop: StopSignal, progress: Progress):
        self._sweep, self._stop, self._progress = sweep, stop, progress
        self._machine = Machine(sweep.settings)
        self._command = train_command()
        self._running: list[LocalJob] = []
        self._stopped = self._no_more = False

    def run(self, jobs: Sequence[Job]) -> None:
        """Run `jobs`; returns when none is left, or when none may start any more and the last has ended."""
        waiting = deque(jobs)
        try:
            while self._running or (waiting and not self.closed()):
                while waiting and self._machine.has_room and not self.closed():
                    job = waiting.popleft()
                    self._progress.started(job)
                    self._running.append(self._machine.start(job, self._command))
                time.sleep(TICK_S)
                self._look_at_all()
        finally:  # an error of our own: no job outlives us
            for job in self._running:
                job.kill("killed, because the sweep itself failed")

    def stop_asked(self) -> bool:
        """Whether the sweep has been told to stop; it stays so."""
        self._stopped = self._stopped or self._stop.asked or stop_asked(self._sweep.folder)
        return self._stopped

    def closed(self) -> bool:
        """Whether no further job may start."""
        return self._no_more or self.stop_asked()

    def _look_at_all(self) -> None:
        for running in list(self._running):
            if self._stop.signals > 1:
                running.kill("killed by a second signal")
            elif self.stop_asked():
                running.ask_to_stop()
            outcome = running.poll()
            if outcome:
                status, code, reason = outcome
                self._progress.ended(running.job, status, reason, running.record.ended(status, code, reason))
                self._running.remove(running)
                self._machine.give_back(running)
                self._no_more = self._no_more or (status == "failed" and self._sweep.settings.on_failure == "stop")
