"""What a sweep's terminal shows: a line when a job starts or ends, and at last what became of all."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from cut_dist.process import UNFINISHED
from cut_dist.sweep.folder import CONSOLE_FILE, read_job, skip_finished
from cut_dist.sweep.plan import Job, Sweep
from cut_dist.sweep.report import write_report
from cut_dist.wording import counted

ALL_FINISHED, SOME_FAILED = 0, 1  # and UNFINISHED, of a sweep that was stopped
log = logging.getLogger(__name__)


class Progress:
    """Says where a sweep is.

    Args:
        sweep: the jobs of this start; while a sweeper proposes them, those known so far.
    """

    def __init__(self, sweep: Sweep):
        self.sweep = sweep

    def waiting(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of the jobs that are not finished, in order; says how many are."""
        waiting = [job for job in jobs if not skip_finished(job)]
        done = len(jobs) - len(waiting)
        kept = f", {done} finished earlier and kept" if done else ""
        log.info("sweep %s: %s in %s%s", self.sweep.name, counted(len(jobs), "job"), self.sweep.folder, kept)
        return waiting

    def started(self, job: Job) -> None:
        log.info("%s: started, output in %s", self._place(job), job.folder / CONSOLE_FILE)

    def ended(self, job: Job, status: str, reason: str | None, seconds: float) -> None:
        """A line for a job's end: an error's where it failed."""
        level = logging.ERROR if status == "failed" else logging.INFO
        log.log(level, "%s: %s after %.0f s%s", self._place(job), status, seconds, f", {reason}" if reason else "")

    def end(self, stopped: bool) -> int:
        """Write results.csv and report.html, print the ranking and, last, what became of all; returns the exit code."""
        settings = self.sweep.settings
        write_report(self.sweep.folder, settings.metric, settings.direction)
        records = {job.name: read_job(job.folder) or {"status": "waiting"} for job in self.sweep.jobs}
        counts: dict[str, int] = {}
        for record in records.values():
            counts[record["status"]] = counts.get(record["status"], 0) + 1
        told = ", ".join(f"{counts[status]} {status}" for status in counts)
        lines = [f"{self.sweep.folder}: {counted(len(records), 'job')}: {told}"]
        lines += [f"  {name}: failed, {r['reason']}" for name, r in records.items() if r["status"] == "failed"]
        code = ALL_FINISHED
        if stopped or counts.get("stopped"):
            code = UNFINISHED
            lines.append("Stopped; the same command goes on.")
        elif counts.get("finished", 0) < len(records):
            code = SOME_FAILED
            lines.append("The same command tries again what is not finished.")
        print("\n".join(lines), flush=True, file=sys.stdout)
        return code

    def _place(self, job: Job) -> str:
        return f"[{self.sweep.jobs.index(job) + 1}/{len(self.sweep.jobs)}] {job.name}"
