"""The job of launch/evaluate.py: the model answers, and each suite measures; what is there already is not done again.

<output>/evaluation.json             the model by hash; numbers and settings of each suite that is done
<output>/responses.jsonl             answers to stage.input: suites `verifiable` and `win_rate`
<output>/alpaca_eval/, rouge/        answers to the suite's own instructions, and `alpaca_eval.json`
<output>/win_rate/, lm_eval/         preferences by pair, scores by task
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cut_dist import durable
from cut_dist.config_check import ConfigError, require
from cut_dist.evaluation import alpaca_eval, harness, report, rouge, verifiable, win_rate
from cut_dist.evaluation.answers import RESPONSES, answer, read_answers
from cut_dist.evaluation.model import answering_record, display_name
from cut_dist.judges.make import judge_settings
from cut_dist.judges.make_pairs import make_pair_judge
from cut_dist.online.config import OnlineConfig
from cut_dist.online.ranks import LauncherRanks
from cut_dist.online.records import Instruction, read_records
from cut_dist.online.stage import StageError
from cut_dist.run_folder import config_changes

log = logging.getLogger(__name__)

EVALUATION = "evaluation.json"
ON_INPUT = ("verifiable", "win_rate")  # suites that ask what is in stage.input


def require_inputs(cfg: OnlineConfig) -> None:
    """Look for all that the suites read before anything slow is loaded.

    Raises:
        ConfigError: a key is missing that a suite needs, or a file, or a package; or it was started as several ranks.
    """
    if LauncherRanks.of_environment().world_size > 1:
        raise ConfigError(
            "launch/evaluate.py is one process: start it by `python`. For several GPUs take generator=vllm or "
            "generator=endpoint, or let them generate the answers beforehand (docs/evaluation.md)."
        )
    own, suites = cfg.evaluation, cfg.evaluation.suites
    require(bool(suites), "evaluation.suites", suites, "name one at least")
    require(bool(cfg.stage.output), "stage.output", None, "give the folder to write to")
    on_input = [suite for suite in suites if suite in ON_INPUT]
    remedy = f"give the instructions that the suite {' and '.join(on_input)} asks, JSONL of {{id, instruction}}"
    require(not on_input or bool(cfg.stage.input), "stage.input", None, remedy)
    paths = {"evaluation.lm_eval_include_path": own.lm_eval_include_path if "lm_eval" in suites else None}
    paths |= {"stage.input": cfg.stage.input} if on_input else {}
    files = {"alpaca_eval": "alpaca_eval_path", "rouge": "rouge_path", "win_rate": "rival"}
    paths |= {f"evaluation.{key}": getattr(own, key) for suite, key in files.items() if suite in suites}
    for key, path in paths.items():
        require(path is None or Path(path).exists(), key, path, f"there is no such file in {Path.cwd()}")
    if "lm_eval" in suites:
        harness.require_harness()
    if "rouge" in suites and importlib.util.find_spec("rouge_score") is None:
        raise ConfigError("The suite rouge needs rouge-score: pip install 'cut-dist[eval]'.")


def evaluate(cfg: OnlineConfig) -> int:
    """Measure the model of `cfg` by its suites, in their order; the numbers are in evaluation.json as they come.

    Raises:
        StageError: the folder holds an evaluation of another model or with other settings.
        WaitingForPeople: the suite win_rate asks people, who are not done.
    """
    output = Path(cfg.stage.output)
    content = _read(output, answering_record(cfg))
    for suite in cfg.evaluation.suites:
        folder, instructions = _asks(cfg, suite, output)
        if instructions is not None:
            answer(cfg, instructions, folder)
        content["suites"][suite] = _MEASURES[suite](cfg, folder)
        content["settings"][suite] = cfg.evaluation.of_suite(suite)
        if suite == "verifiable":  # where the report of a sweep looks
            content["verifiable"] = {name: content["suites"][suite][name] for name in verifiable.SHARES}
        durable.replace_file(output / EVALUATION, (json.dumps(content, indent=1) + "\n").encode())
    report.show(content)
    log.info("%s", output / EVALUATION)
    return 0


def _asks(cfg: OnlineConfig, suite: str, output: Path) -> tuple[Path, list[Instruction] | None]:
    """Where a suite's files lie, and what it lets the model answer; None where that is nothing."""
    own = cfg.evaluation
    if suite == "lm_eval":
        return output / suite, None
    if suite in ON_INPUT:
        folder, rows = output, read_records(Path(cfg.stage.input), Instruction)
    elif suite == "alpaca_eval":
        folder, rows = output / suite, alpaca_eval.read_instructions(own.alpaca_eval_path)
    else:
        skip_bad = cfg.data.on_bad_row == "skip"
        folder = output / suite
        rows = rouge.read_instructions(own.rouge_path, own.rouge_reference, skip_bad=skip_bad)
    return folder, rows[: own.limit]


def _read(output: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """What evaluation.json holds of this model, to go on with."""
    path = output / EVALUATION
    if not path.exists():
        return {"model": model, "suites": {}, "settings": {}}
    content = {"settings": {}, **json.loads(path.read_bytes())}
    if _weights(content["model"]) != _weights(model):
        changes = "\n  ".join(config_changes(content["model"], model))
        raise StageError(
            f"{path} is of another model:\n  {changes}\n"
            "Choose another stage.output, or remove that folder to measure anew"
        )
    return content


def _weights(model: Mapping[str, Any]) -> Any:
    """What a model is; where its folder lies does not matter."""
    return model.get("files") or model


def _verifiable(cfg: OnlineConfig, folder: Path) -> dict[str, Any]:
    return verifiable.score(read_answers(folder))


def _alpaca_eval(cfg: OnlineConfig, folder: Path) -> dict[str, Any]:
    reference = cfg.evaluation.alpaca_eval_path
    return alpaca_eval.hand_over(read_answers(folder), display_name(cfg), reference, folder)


def _lm_eval(cfg: OnlineConfig, folder: Path) -> dict[str, Any]:
    return harness.measure(cfg, folder)


def _rouge(cfg: OnlineConfig, folder: Path) -> dict[str, Any]:
    return {"reference": cfg.evaluation.rouge_reference, **rouge.score(read_answers(folder))}


def _win_rate(cfg: OnlineConfig, folder: Path) -> dict[str, Any]:
    rival, own = Path(cfg.evaluation.rival), folder / "win_rate"
    inputs = {"ours": folder / RESPONSES, "rival": rival}
    judge = make_pair_judge(cfg, own)
    preferences = win_rate.compare(
        win_rate.pair_up(read_answers(folder), rival), judge, own, inputs, judge_settings(cfg)
    )
    return {"judge": cfg.judge.name, "rival": str(rival), **win_rate.summarise(preferences)}


_MEASURES: Mapping[str, Callable[[OnlineConfig, Path], dict[str, Any]]] = {
    "verifiable": _verifiable,
    "alpaca_eval": _alpaca_eval,
    "lm_eval": _lm_eval,
    "rouge": _rouge,
    "win_rate": _win_rate,
}
