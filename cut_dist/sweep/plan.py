"""What a sweep's command means: every job composed, validated and its inputs found before the first one starts."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.override_parser.types import Override

from cut_dist.config import Config, ConfigError, SweepConfig
from cut_dist.config_compose import conf_dir
from cut_dist.data.triplets import DataError
from cut_dist.preflight import require_inputs
from cut_dist.sweep.grid import check_names, job_name, params_overrides, settings, split_overrides, values
from cut_dist.sweep.metric import require_metric


@dataclass(frozen=True)
class Request:
    """A command that asks for a sweep.

    Attributes:
        compose: from overrides with one value each to a validated configuration.
        overrides: as typed, several values among them.
    """

    compose: Callable[[Sequence[str]], Config]
    overrides: Sequence[str]


@dataclass(frozen=True)
class Job:
    """One setting of a sweep.

    Attributes:
        name: of its folder inside the sweep's.
        overrides: swept key → value, as text.
        cfg: what it trains, already told to lie in the sweep's folder.
    """

    name: str
    overrides: dict[str, str]
    cfg: Config

    @property
    def folder(self) -> Path:
        run = self.cfg.run
        return Path(run.root) / run.experiment / run.name


@dataclass(frozen=True)
class Sweep:
    """A sweep whose jobs are all known.

    Attributes:
        name: of its folder, `<settings.root>/<name>/`.
        settings: its section of the configuration.
        swept: key → values as text, in the order of the command.
        jobs: in the order in which they are started.
    """

    name: str
    settings: SweepConfig
    swept: dict[str, list[str]]
    jobs: list[Job]

    @property
    def folder(self) -> Path:
        return Path(self.settings.root) / self.name


class Composer:
    """Composes jobs of one sweep: the fixed overrides, the job's own, and what the sweep itself sets.

    Attributes:
        name: of the sweep.
        swept: what is swept, by key: the override; those of `sweep.params` first.
        base: the configuration with the first value of each, whose `sweep` section is the sweep's.
        hydra: overrides of Hydra's own section, which a sweeper reads.
    """

    def __init__(self, request: Request):
        self._compose = request.compose
        self.hydra = [text for text in request.overrides if text.lstrip("+~").startswith(("hydra/", "hydra."))]
        with _hydra():
            self._fixed, typed = split_overrides([text for text in request.overrides if text not in self.hydra])
            first = [_first(override) for override in typed.values()]
        self.base = self._compose([*self._fixed, *first])
        taken = {text.lstrip("+~").partition("=")[0] for text in self._fixed} | set(typed)
        with _hydra():
            self.swept = params_overrides(self.base.sweep.params or {}, taken) | typed
        self.name = self.base.sweep.name or self.base.run.experiment
        self._check()

    def _check(self) -> None:
        require_metric(self.base.sweep.metric)
        if not self.swept:
            raise ConfigError("Nothing is swept: give several values, objective.lam=1.1,1.2, or sweep.params.")
        if any(text.startswith("run.name=") for text in self._fixed):
            raise ConfigError("run.name is set by the sweep for each job; to name the sweep itself, sweep.name=...")
        if self.base.run.resume == "never":
            raise ConfigError("run.resume=never: a sweep goes on where it was; to start anew give another sweep.name.")

    def job(self, setting: dict[str, str]) -> Job:
        """One setting, its keys as in an override (with their +), as a job whose inputs are there.

        Raises:
            ConfigError: naming the job and what is wrong with it.
        """
        name = job_name(setting)
        try:
            cfg = self._compose([*self._fixed, *(f"{key}={value}" for key, value in setting.items())])
            require_inputs(cfg)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"Job {name}: {error}") from error
        # Only now: where this sweep lies is not where the model of an earlier run (${run.root}/...) does.
        cfg.run = replace(cfg.run, root=self.base.sweep.root, experiment=self.name, name=name)
        return Job(name, {key.lstrip("+~"): value for key, value in setting.items()}, cfg)

    def grid(self) -> Sweep:
        """All combinations of the swept values.

        Raises:
            ConfigError: about the grid, or about one job, named.
        """
        with _hydra():
            chosen = settings(self.swept)
            swept = {key: values(override) for key, override in self.swept.items()}
        check_names(chosen)
        jobs = [self.job(setting) for setting in chosen]
        for one, other in itertools.combinations(jobs, 2):
            if replace(one.cfg, run=other.cfg.run) == other.cfg:
                raise ConfigError(f"Jobs {one.name} and {other.name} are the same configuration; leave one out.")
        return Sweep(self.name, self.base.sweep, swept, jobs)


def plan(request: Request) -> Sweep:
    """The sweep that a command asks for, by Hydra's grid.

    Raises:
        ConfigError: one sentence, as for a single run, with the job's name where only that one is wrong.
    """
    composer = Composer(request)
    if composer.hydra:
        raise ConfigError(
            f"{composer.hydra[0]!r}: another sweeper drives `python launch/sweep.py` only, and proposes its jobs as it "
            "goes, so --cfg can't list them."
        )
    return composer.grid()


def print_jobs(request: Request) -> None:
    """What `--cfg job` shows of a sweep: a line for each job, and nothing is started."""
    for number, job in enumerate(plan(request).jobs, start=1):
        print(f"{number:4}  {job.folder}  {' '.join(f'{key}={value}' for key, value in job.overrides.items())}")


def command_line() -> list[str]:
    """The command without what the launcher adds for each rank, and without where the checkout lies."""
    script = "/".join(Path(sys.argv[0]).parts[-2:])
    typed = [argument for argument in sys.argv[1:] if not argument.startswith(("--local_rank=", "--local-rank="))]
    return [script, *typed]


def _hydra() -> AbstractContextManager:
    """Where a glob() of a group's members can be read."""
    return initialize_config_dir(str(conf_dir()), job_name="sweep", version_base="1.3")


def _first(override: Override) -> str:
    """An override with the first of its values, by which the sweep's own section is read."""
    if override.is_sweep_override() and not override.is_discrete_sweep():
        return f"{override.get_key_element()}={override.value().start}"
    return f"{override.get_key_element()}={values(override)[0]}"
