"""Many trainings in one process: the trainer's own code, without a start of Python and DeepSpeed for each."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from cut_dist.config import Config, run_dir
from cut_dist.engine.launch import start_process, stop_process
from cut_dist.model.load import load_tokenizer
from cut_dist.objective_options import prepare_data
from cut_dist.process import StopSignal, remove_shared_buffers
from cut_dist.run_folder import RunFolderError
from cut_dist.run_start import METRICS
from cut_dist.train import train_with
from cut_dist.wording import UserError

log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """This process was asked to stop; what it was at is begun anew at the next start."""


class StopAtOnce(StopSignal):
    """Raises `Stopped` wherever the process is at the first signal, Ctrl-C too: no cell is kept half made."""

    def __init__(self) -> None:
        super().__init__(interrupt=True)

    def _on_signal(self, *args: object) -> None:
        first = not self.signals  # a second one may come while the first is cleaned up
        super()._on_signal(*args)
        if first:
            raise Stopped


class TrainingFailed(UserError):
    """A training of the study came to nothing: its loss was not finite, or no candidate for its settings' was."""


class Trainer:
    """A process group of this process alone, in which one model after the other is trained; a context manager."""

    def __init__(self, timeout_minutes: float = 30.0) -> None:
        self._timeout_minutes = timeout_minutes

    def __enter__(self) -> Trainer:
        self._stop = StopAtOnce()
        self._ranks = start_process(self._timeout_minutes)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            stop_process()
        finally:
            remove_shared_buffers(int(os.environ["MASTER_PORT"]))

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop; Python may have lost what the signal raised, in a destructor say."""
        return self._stop.asked

    def run(self, cfg: Config) -> Path:
        """Run the training of `cfg`; where it is done, find its model. One that was interrupted begins anew.

        Returns:
            The exported model's folder.

        Raises:
            TrainingFailed: its loss was not finite.
            RunFolderError: it could not begin; the log says why.
            Stopped: it was asked to stop.
        """
        folder = run_dir(cfg)
        if (folder / "model").exists():
            return folder / "model"
        if folder.exists():
            shutil.rmtree(folder)
        tokenizer = load_tokenizer(cfg.model)
        data = prepare_data(cfg, tokenizer)
        status = train_with(cfg, tokenizer, data, self._ranks, self._stop)
        if status and not (folder / METRICS).exists():
            raise RunFolderError(f"{folder}: the training was refused; the log says why")
        if status:
            raise TrainingFailed(f"the loss was not finite for {cfg.train.max_bad_steps} steps in a row")
        if not (folder / "model").exists():
            log.info("%s was stopped between two steps", folder)
            raise Stopped
        return folder / "model"


def discard(run: Path) -> None:
    """Remove a trained model and its run, which a cell's numbers outlive; no half of it is found under its name."""
    gone = run.with_name(f"{run.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)  # of a removal that was interrupted
    run.rename(gone)
    shutil.rmtree(gone)
