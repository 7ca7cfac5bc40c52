"""What is missing, seen before anything slow is loaded: data files, the model of an earlier run, a free port."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from cut_dist.config import Config, ConfigError
from cut_dist.data.readers import require_source
from cut_dist.run_folder import FINISHED_FILE
from cut_dist.tracker import require_tracker


def require_inputs(cfg: Config) -> None:
    """Look for the inputs that are files here, on rank 0; names on the Hub are left to their own errors.

    Raises:
        DataError: a data file is missing.
        ConfigError: the model is that of a run that is not here, and other runs of its experiment are; or the
            tracker is not installed.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    require_tracker(cfg.tracker)
    for path in (cfg.data.path, cfg.data.heldout_path):
        if path:
            require_source(path, format=cfg.data.format, columns=cfg.data.columns)
    _require_parent(Path(cfg.model.name_or_path or "."))


def require_port() -> None:
    """Raise a ConfigError, on rank 0 of a launcher, if another process listens on the port that ranks meet at.

    Later it costs more than a traceback: the other ranks of this run would join the group of the run that has the port.
    """
    agent_has_it = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun listens there itself
    if os.environ.get("RANK") != "0" or "MASTER_PORT" not in os.environ or agent_has_it:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch does: a closed connection may linger
        try:
            probe.bind(("", int(os.environ["MASTER_PORT"])))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(port_taken()) from error


def port_taken() -> str:
    """The sentence for a start whose MASTER_PORT is in use."""
    port = int(os.environ["MASTER_PORT"])
    remedy = f"give this one another, `deepspeed --master_port {port + 1} launch/train.py ...`"
    return f"Port {port} of this machine is taken, probably by another run: {remedy}"


def _require_parent(model: Path) -> None:
    """Where `<root>/<experiment>/<run>/model` is missing, name the runs of that experiment that have a model."""
    if model.is_dir() or len(model.parts) < 4 or model.name != "model":
        return
    experiment = model.parent.parent
    models = sorted(path.with_name("model") for path in experiment.glob(f"*/{FINISHED_FILE}"))
    names = [str(path) for path in models if path.is_dir()]
    if names:
        listed = "\n  ".join(f"model.name_or_path={name}" for name in names)
        raise ConfigError(f"There is no model {model}. Finished runs of {experiment.name} give:\n  {listed}")
