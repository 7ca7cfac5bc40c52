"""Online alignment: rounds of generate, judge, train, evaluate. Read `run_rounds` from top to bottom.

The loop itself needs no accelerator and no PyTorch: what does is a stage in a process of its own, started by the
same commands that a person would type. All that the loop knows lies in files, so it goes on wherever it was ended.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from cut_dist import durable
from cut_dist.config import Config, ModelConfig, identity, run_dir
from cut_dist.evaluation.answers import greedy
from cut_dist.evaluation.driver import ON_INPUT, require_inputs
from cut_dist.model.resolve import resolve_model
from cut_dist.online.child import StageEnded, run_child
from cut_dist.online.config import OnlineConfig
from cut_dist.online.files import RoundFiles
from cut_dist.online.instructions import HELDOUT, sample_instructions
from cut_dist.online.live import Live
from cut_dist.online.page import write_report
from cut_dist.online.server import serving
from cut_dist.online.stage import read_manifest
from cut_dist.online.summary import read_evaluation
from cut_dist.online.triplets import make_triplets
from cut_dist.process import UNFINISHED, StopSignal, free_port
from cut_dist.run_folder import (
    STOP_FILE,
    RunLock,
    check_same_config,
    create_run_folder,
    mark_finished,
    read_finished,
    write_config,
)
from cut_dist.run_start import set_aside
from cut_dist.wording import counted

log = logging.getLogger(__name__)

LAUNCH = Path(__file__).resolve().parent.parent.parent / "launch"


def run_rounds(cfg: OnlineConfig) -> int:
    """Run, or go on with, all rounds of `cfg` in `<run.root>/<run.experiment>/<run.name>/`.

    Returns:
        0 when all rounds are done, 75 when it was stopped or waits for a person, else the status of the failed stage.
    """
    stop = StopSignal(interrupt=True)
    online = run_dir(cfg)
    if cfg.run.resume == "never" and (moved := set_aside(online)):
        log.info("run.resume=never: the earlier rounds were moved to %s", moved)
    create_run_folder(Path(cfg.run.root), cfg.run.experiment, cfg.run.name)
    with RunLock(online), Live(cfg, online) as live:
        check_same_config(online, identity(cfg))
        write_config(online, dataclasses.asdict(cfg), identity(cfg))
        (online / STOP_FILE).unlink(missing_ok=True)
        loop = Loop(cfg, online, live, lambda: bool(stop.asked or (online / STOP_FILE).exists()))
        try:
            loop.run()
        except StageEnded as ended:
            return ended.status
        finally:
            write_report(cfg, online)
        if (read_finished(online) or {}).get("rounds") != cfg.online.rounds:
            mark_finished(online, {"rounds": cfg.online.rounds})
    log.info("%s done; %s", counted(cfg.online.rounds, "round"), online / "report.html")
    return 0


_GENERATING = ("generate", "answer")
_SCRIPTS = {"answer": "generate"}  # stage → launch/<script>.py, where the names differ


class Loop:
    """The rounds of one online run, each stage done or found done."""

    def __init__(self, cfg: OnlineConfig, online: Path, live: Live, stop_asked: Callable[[], bool]) -> None:
        self.cfg, self.online, self.live, self.stop_asked = cfg, online, live, stop_asked

    def run(self) -> None:
        """All rounds, one after the other."""
        first = self.cfg.model
        before = RoundFiles(self.online, 0)
        # what is missing shows before anything slow begins
        sample_instructions(self.cfg, HELDOUT, before.heldout)
        sample_instructions(self.cfg, 1, RoundFiles(self.online, 1).instructions)
        require_inputs(stage_config(self.cfg, "evaluate", before, first))
        if self.cfg.online.evaluate_first:
            self.evaluate(before, first)
        model = first
        for number in range(1, self.cfg.online.rounds + 1):
            files = RoundFiles(self.online, number)
            earlier = [RoundFiles(self.online, each).triplets for each in range(1, number)]
            sample_instructions(self.cfg, number, files.instructions)
            self.stage("generate", files, model)
            self.stage("judge", files, model)
            make_triplets(self.cfg, number, files.responses, files.judgments, earlier, files.triplets)
            self.stage("train", files, model if self.cfg.online.start_from == "previous" else first)
            model = ModelConfig(**{**vars(first), **_TRAINED, "name_or_path": str(files.model)})
            self.evaluate(files, model)

    def evaluate(self, files: RoundFiles, model: ModelConfig) -> None:
        """Answer over all ranks, then measure in one process, which takes the answers that are there."""
        own = self.cfg.evaluation
        asks_heldout = {*ON_INPUT} & {*own.suites} and own.limit is None
        if asks_heldout and self.cfg.generator.name == "hf" and not self._done("evaluate", files):
            self.stage("answer", files, model)
        self.stage("evaluate", files, model)

    def stage(self, name: str, files: RoundFiles, model: ModelConfig) -> None:
        """Run a stage in a process of its own, unless it is done.

        Raises:
            StageEnded: it failed, was stopped, or waits for a person.
        """
        if self._done(name, files):
            return
        self.live.begin(files.number, name)
        if name == "judge" and self.cfg.judge.name == "human":
            self.live.say(f"a person judges; where, is said in {files.console(name)}")
        cfg = stage_config(self.cfg, name, files, model)
        if self.cfg.generator.serve and self._asks(name):
            console = files.console(f"{name}_server")
            folder = resolve_model(model.name_or_path, model.revision)
            with serving(self.cfg, folder, console, self.stop_asked) as url:
                cfg.generator = dataclasses.replace(
                    cfg.generator, endpoint=dataclasses.replace(cfg.generator.endpoint, base_url=url)
                )
                self.run_stage(name, files, cfg)
        else:
            self.run_stage(name, files, cfg)

    def run_stage(self, name: str, files: RoundFiles, cfg: Config) -> None:
        """Start a stage's process with a configuration and see it to its end; raises as `stage`."""
        files.config(name).parent.mkdir(parents=True, exist_ok=True)
        durable.replace_file(files.config(name), yaml.safe_dump(dataclasses.asdict(cfg)).encode())
        script = LAUNCH / f"{_SCRIPTS.get(name, name)}.py"
        command = [*self._starter(name), str(script), "--config-file", str(files.config(name))]
        status = run_child(
            command,
            files.console(name),
            watch=self.live.refresh,
            stop_asked=self.stop_asked,
            stop_file=files.training / STOP_FILE if name == "train" else None,
        )
        if status == 0 and self._done(name, files):
            return
        if self.stop_asked():
            self.live.say(f"stopped in round {files.number}, {name}; the same command goes on")
        elif status in (0, UNFINISHED):
            self.live.ended_early(name, "is not at its end; the same command goes on", files.console(name))
        else:
            self.live.ended_early(name, f"ended with status {status}", files.console(name))
            raise StageEnded(max(status, 1))
        raise StageEnded(UNFINISHED)

    def _done(self, name: str, files: RoundFiles) -> bool:
        """Whether a stage of a round is at its end. That its inputs are the same is for the stage to see.

        The settings of an evaluation may change from one start to the next; what was measured with others is not done,
        so that one curve never has both.
        """
        if name == "train":
            return read_finished(files.training) is not None
        if name == "evaluate":
            found = read_evaluation(files)
            asked = {suite: self.cfg.evaluation.of_suite(suite) for suite in self.cfg.evaluation.suites}
            return all(
                suite in found["suites"] and found["settings"].get(suite, keys) == keys for suite, keys in asked.items()
            )
        outputs = {"generate": files.responses, "judge": files.judgments, "answer": files.answers}
        return read_manifest(outputs[name]) is not None

    def _asks(self, name: str) -> bool:
        """Whether a stage lets the generator answer."""
        return name in _GENERATING or (name == "evaluate" and set(self.cfg.evaluation.suites) != {"lm_eval"})

    def _starter(self, name: str) -> list[str]:
        """What starts a stage: the launcher of ranks where it uses them, else Python."""
        uses_ranks = name == "train" or (name in _GENERATING and self.cfg.generator.name == "hf")
        launcher = self.cfg.online.launcher
        if not uses_ranks or launcher == ["python"]:
            return [sys.executable]
        if launcher[0] == "deepspeed" and not any(each.startswith("--master_port") for each in launcher):
            return [_program("deepspeed"), *launcher[1:], "--master_port", str(free_port())]
        return [_program(launcher[0]), *launcher[1:]]


# What a model that a round has trained does not take over from the first one: its folder says it all.
_TRAINED = {"revision": None, "random_init": None, "tokenizer": None}


def stage_config(cfg: OnlineConfig, name: str, files: RoundFiles, model: ModelConfig) -> Config:
    """The configuration that a stage of a round is started with."""
    if name == "train":
        run = dataclasses.replace(
            cfg.run, root=str(files.online), experiment=files.folder.name, name=files.training.name,
            resume="auto", stop_after=None,  # what the loop was asked is not asked of each start of a training
        )  # fmt: skip
        group = cfg.tracker.group or f"{cfg.run.experiment}-{cfg.run.name}"
        changed = {
            "model": model,
            "data": dataclasses.replace(cfg.data, path=str(files.triplets), format="cut_dist"),
            "tracker": dataclasses.replace(cfg.tracker, group=group),
            "run": run,
        }
        names = [each.name for each in dataclasses.fields(Config)]
        return Config(**{name: changed.get(name, getattr(cfg, name)) for name in names})
    if name == "answer":
        cfg = greedy(cfg)
    source, output = {
        "generate": (files.instructions, files.responses),
        "answer": (files.heldout, files.answers),
        "judge": (files.responses, files.judgments),
        "evaluate": (files.heldout, files.evaluation),
    }[name]
    files_of_stage = dataclasses.replace(cfg.stage, input=str(source), output=str(output))
    return dataclasses.replace(cfg, model=model, stage=files_of_stage)


def _program(name: str) -> str:
    """The program of this Python's environment where it has one, which need not be on the PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name
