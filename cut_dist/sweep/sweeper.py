"""Another sweeper than the grid: whichever Hydra plugin `hydra/sweeper=` names proposes settings, we run them.

Hydra's sweepers speak to a launcher: they hand it a batch of overrides and get back each job's number. Ours runs the
batch as any jobs of a sweep, several at a time, and a job that is finished already answers at once; so a search with a
fixed seed, started again, comes by the same settings and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cut_dist.config import ConfigError, SweepConfig
from cut_dist.config_check import require
from cut_dist.config_compose import conf_dir, parse_override
from cut_dist.process import StopSignal
from cut_dist.run_folder import RunLock
from cut_dist.sweep.folder import create_folders, read_job, record_plan
from cut_dist.sweep.metric import VERIFIABLE
from cut_dist.sweep.orchestrate import Pool
from cut_dist.sweep.plan import Composer, Job, Sweep
from cut_dist.sweep.progress import Progress
from cut_dist.sweep.results import SweepError, read_result

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """The sweep has been told to stop; it ends the sweeper's loop."""


def search(composer: Composer, stop: StopSignal) -> int:
    """Run the jobs that a Hydra sweeper proposes.

    Returns:
        0 if all jobs are finished, 1 if some failed, 75 if the sweep was stopped.

    Raises:
        ConfigError: there is no such sweeper, or it can't search what is given, by what is given, or there.
    """
    _require_searchable(composer.base.sweep)
    swept = {key: [] for key in composer.swept}
    sweep = Sweep(composer.name, composer.base.sweep, swept, jobs=[])
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with RunLock(sweep.folder):
        batches = _Batches(composer, sweep, stop)
        try:
            with initialize_config_dir(str(conf_dir()), job_name="sweep", version_base="1.3"):
                sweeper = _sweeper(composer, batches)
            sweeper.sweep([override.input_line for override in composer.swept.values()])
        except _Stopped:
            pass
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"{' '.join(composer.hydra)}: {' '.join(str(error).split())[:400]}") from error
        return batches.progress.end(batches.pool.stop_asked())


def _require_searchable(settings: SweepConfig) -> None:
    here = "a sweeper waits for each batch of jobs, which run on this machine only: leave it out"
    require(settings.cluster == "here", "sweep.cluster", settings.cluster, here)
    trained = "is measured after training, by launch/evaluate.py: a search goes by what each job reports itself"
    require(not settings.metric.startswith(VERIFIABLE), "sweep.metric", settings.metric, trained)


class _Batches:
    """Runs what the sweeper proposes, and answers with `sweep.metric`."""

    def __init__(self, composer: Composer, sweep: Sweep, stop: StopSignal):
        self._composer, self._sweep, self.folder = composer, sweep, sweep.folder
        self.progress = Progress(sweep)
        self.pool = Pool(sweep, stop, self.progress)

    def run(self, proposed: Sequence[Sequence[str]]) -> list[JobReturn]:
        jobs = [self._job(overrides) for overrides in proposed]
        create_folders(self._sweep)
        record_plan(self._sweep)
        self.pool.run(self.progress.waiting(jobs))
        if self.pool.closed():
            raise _Stopped
        return [self._answer(job) for job in jobs]

    def _job(self, overrides: Sequence[str]) -> Job:
        parsed = [parse_override(text) for text in overrides]
        setting = {override.get_key_element(): override.get_value_element_as_str() for override in parsed}
        known = {job.name: job for job in self._sweep.jobs}
        job = self._composer.job(setting)
        if job.name in known:  # a sweeper may ask twice
            return known[job.name]
        self._sweep.jobs.append(job)
        for key, value in job.overrides.items():
            self._sweep.swept[key].append(value)
        return job

    def _answer(self, job: Job) -> JobReturn:
        record = read_job(job.folder)
        if record["status"] != "finished":
            return JobReturn(status=JobStatus.FAILED, _return_value=RuntimeError(f"{job.name}: {record['reason']}"))
        metric = self._sweep.settings.metric
        described = {"index": record["index"], "name": job.name, "overrides": job.overrides}
        numbers = read_result(job.folder, described).numbers
        if metric not in numbers:
            error = SweepError(f"{job.folder} has no {metric}, which the search goes by; it has {', '.join(numbers)}")
            log.error("%s", error)
            return JobReturn(status=JobStatus.FAILED, _return_value=error)
        return JobReturn(status=JobStatus.COMPLETED, _return_value=numbers[metric])


class _JobsLauncher(Launcher):
    """What the sweeper takes for a Hydra launcher."""

    def __init__(self, batches: _Batches):
        self._batches = batches

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        pass

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self._batches.run(job_overrides)


def _sweeper(composer: Composer, batches: _Batches) -> Any:
    """The sweeper that the command names, with our launcher."""
    tree = compose("train", composer.hydra, return_hydra_config=True)
    with open_dict(tree):
        _adapt(tree.hydra.sweeper, composer)
        tree.hydra.sweep.dir = str(batches.folder)  # where a sweeper writes what it has found
    context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=None)
    plugins = Plugins.instance()
    # Hydra makes launchers only of classes in a package `hydra_plugins`, and without arguments; a sweeper asks for its
    # launcher here.
    plugins.instantiate_launcher = lambda **_: _JobsLauncher(batches)
    try:
        return plugins.instantiate_sweeper(hydra_context=context, task_function=lambda cfg: None, config=tree)
    finally:
        del plugins.instantiate_launcher


def _adapt(section: DictConfig, composer: Composer) -> None:
    """Give the sweeper what our own keys say, where it has such a key and the command does not set it."""
    settings = composer.base.sweep
    ours = {
        "direction": {"min": "minimize", "max": "maximize"}[settings.direction],
        "n_jobs": settings.jobs_at_a_time,
        "max_failure_rate": 1.0 if settings.on_failure == "continue" else 0.0,
        "sampler.seed": composer.base.seed,  # so that a second start proposes the same
    }
    typed = {text.lstrip("+~").partition("=")[0] for text in composer.hydra}
    for key, value in ours.items():
        parent, _, last = key.rpartition(".")
        inside = OmegaConf.select(section, parent) if parent else section
        if isinstance(inside, DictConfig) and last in inside.keys() and f"hydra.sweeper.{key}" not in typed:  # noqa: SIM118
            inside[last] = value
