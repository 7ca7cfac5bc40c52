"""The entry point of every launch/*.py: arguments, a validated configuration, the job, an exit status."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra import initialize_config_dir
from omegaconf import OmegaConf

from cut_dist.config import AnyConfig, Config, ConfigError
from cut_dist.config_compose import compose_config, conf_dir, config_groups, read_config
from cut_dist.judges.base import WaitingForPeople
from cut_dist.preflight import port_taken
from cut_dist.process import UNFINISHED
from cut_dist.sweep.plan import Request, print_jobs
from cut_dist.wording import UserError, nearest

BAD_CONFIGURATION = 2
FAILED = 1
_GRACE_S = 5.0  # in which the launcher ends the ranks that wait, where rank 0 has met the same problem

_USAGE = """usage: {script} [options] [+experiment=NAME] [GROUP=MEMBER ...] [KEY=VALUE ...]

  +experiment=NAME    a whole configuration, one of those below
  GROUP=MEMBER        another member of a group, such as deepspeed=zero3_offload
  KEY=VALUE           one value, such as objective.lam=1.2; `--cfg job` lists the keys

{groups}
options:
  -m, --multirun      a sweep: KEY=A,B and GROUP=A,B in every combination, one job after the other
  --cfg job           print the composed, validated configuration (with -m: the jobs) and do nothing else
  --config-dir DIR    take groups and experiments of your own from DIR too (DIR/experiment/mine.yaml)
  --config-file FILE  take a composed configuration, a run's config.yaml; only KEY=VALUE goes on top
  --help              this text

Every key is explained in {yamls}."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}.")


def hydra_entry(
    config_name: str,
    job: Callable[[AnyConfig], int | None],
    schema: type[AnyConfig] = Config,
    argv: Sequence[str] | None = None,
    sweep: Callable[[Request], int] | None = None,
) -> NoReturn:
    """Compose the configuration that the command asks for, run `job` on it and exit.

    Exits with 2 where the configuration can't be run (a sentence on stderr, from rank 0), with 1 where the
    job meets a problem that its user can mend (a sentence from rank 0, or from the ranks that met it without
    rank 0), with 75 where it waits for people, else with what the job returns (None is 0). Any other exception of the
    job passes through.

    Args:
        config_name: stem of a yaml at the root of conf/.
        job: takes the validated configuration; imports what is heavy itself, so that mistakes show at once.
        schema: `Config`, or a subclass of it with the sections of this entry point.
        argv: arguments without the script's name; default `sys.argv[1:]`.
        sweep: runs in place of `job` where -m asks for several configurations; it composes them itself.
    """
    rank = int(os.environ.get("RANK", "0"))
    try:
        options, overrides = _arguments(sys.argv[1:] if argv is None else argv)
        compose = functools.partial(_compose, config_name, schema, options)
        if options.help or (options.cfg and rank):
            cfg = None
        elif options.multirun:
            job, cfg = _sweep(sweep, options), Request(compose, overrides)
        else:
            cfg = compose(overrides)
    except ConfigError as error:
        _let_rank_0_speak(rank)
        if rank == 0:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_CONFIGURATION)
    if options.help and rank == 0:
        print(_usage(config_name))
    elif options.cfg and not options.multirun and rank == 0:
        print(OmegaConf.to_yaml(dataclasses.asdict(cfg)), end="")
        cfg = None
    if cfg is None:
        sys.exit(0)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("cut_dist").setLevel(logging.INFO if rank == 0 else logging.ERROR)
    try:
        status = job(cfg)
    except WaitingForPeople as waiting:
        print(f"not finished: {waiting}", file=sys.stderr)
        sys.exit(UNFINISHED)
    except Exception as error:
        said = _for_users(error)
        if said is None:
            raise
        _let_rank_0_speak(rank)
        where = f"[rank {rank}] " if rank else ""
        print(f"error: {where}{said}", file=sys.stderr)
        sys.exit(BAD_CONFIGURATION if isinstance(error, ConfigError) else FAILED)
    sys.exit(status or 0)


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the rest, which are overrides."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--local_rank", "--local-rank")  # the deepspeed launcher's; LOCAL_RANK says the same
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-file")
    parser.add_argument("--multirun", "-m", action="store_true")
    options, overrides = parser.parse_known_args(argv)
    flags = [text for text in overrides if text.startswith("-")]
    if flags:
        match = nearest(flags[0].lstrip("-"), ["help", "cfg", "config-dir", "config-file", "multirun"])
        raise ConfigError(f"There is no option {flags[0]}{f'; did you mean --{match}?' if match else '.'}")
    if options.config_file and options.config_dir:
        raise ConfigError("--config-file is a whole configuration; it takes nothing from --config-dir.")
    return options, overrides


def _compose(
    config_name: str, schema: type[AnyConfig], options: argparse.Namespace, overrides: Sequence[str]
) -> AnyConfig:
    if options.config_file:
        return read_config(Path(options.config_file), overrides, schema)
    return compose_config(config_name, overrides, schema, options.config_dir)


def _sweep(run: Callable[[Request], int] | None, options: argparse.Namespace) -> Callable[[Request], int | None]:
    if run is None:
        raise ConfigError("--multirun is not offered here: launch/train.py -m or launch/sweep.py start a sweep.")
    return print_jobs if options.cfg else run


def _usage(config_name: str) -> str:
    folder = conf_dir()
    with initialize_config_dir(str(folder), job_name="help", version_base="1.3"):
        groups = config_groups()
    text = ""
    for name, members in sorted(groups.items()):
        first, other = f"  {name + ':':<20}", " " * 22
        text += textwrap.fill(" ".join(members), 100, initial_indent=first, subsequent_indent=other) + "\n"
    script = os.path.relpath(sys.argv[0]) if sys.argv[0] else "launch/train.py"
    yamls = " and ".join(os.path.relpath(folder / f"{name}.yaml") for name in dict.fromkeys((config_name, "train")))
    return _USAGE.format(script=script, groups=text, yamls=yamls)


def _let_rank_0_speak(rank: int) -> None:
    """Wait on the other ranks: a problem that all have is then told by rank 0 alone, whose exit ends them all."""
    if rank:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # training has set a handler that goes on to a checkpoint
        time.sleep(_GRACE_S)


def _for_users(error: Exception) -> str | None:
    """What is wrong and the remedy, for errors whose traceback would only hide it; None for all others."""
    if isinstance(error, UserError):
        return str(error)
    # Two starts at the same moment: neither sees the other before. By name, since torch may not be imported.
    if type(error).__name__ == "DistNetworkError" and "EADDRINUSE" in str(error):
        return port_taken()
    return None
