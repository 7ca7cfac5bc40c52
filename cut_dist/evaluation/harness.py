"""Suite `lm_eval`: tasks of lm-evaluation-harness on the model at hand, by default the paper's four.

The paper's numbers are those of the Open LLM Leaderboard: a set number of examples in the prompt for each task, and no
chat template. A task that is done is not run again.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cut_dist.config_check import ConfigError
from cut_dist.data.triplets import DataError
from cut_dist.evaluation.model import weights_record
from cut_dist.manifest import file_sha256
from cut_dist.online.config import OnlineConfig
from cut_dist.online.records import read_records
from cut_dist.online.stage import open_stage
from cut_dist.wording import nearest

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

# Examples in the prompt, as on the leaderboard; any other task has as many as it says itself.
SHOTS = {"arc_challenge": 25, "hellaswag": 10, "mmlu": 5, "truthfulqa_mc2": 0}
_HEADLINES = ("acc_norm", "acc", "exact_match")  # the first of these that a task has; so on the leaderboard too


@dataclass(frozen=True)
class TaskScore:
    """One task or group of tasks.

    Attributes:
        id: its name.
        metrics: all that the harness gives, by name (and `name,filter` where a filter was at work).
        errors: their standard errors.
        questions: how many were asked; None for a group.
        shots: examples in the prompt; None for a group whose tasks differ.
        harness: the version of lm-evaluation-harness.
    """

    id: str
    metrics: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)
    questions: int | None = None
    shots: int | None = None
    harness: str = ""

    @property
    def headline(self) -> str:
        """The metric that stands for the task."""
        return next((name for name in _HEADLINES if name in self.metrics), next(iter(self.metrics)))


def require_harness() -> None:
    """Raise a ConfigError unless lm-evaluation-harness is installed; nothing is imported."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("The suite lm_eval needs lm-evaluation-harness: pip install 'cut-dist[eval]'.")


def measure(cfg: OnlineConfig, folder: Path) -> dict[str, Any]:
    """Scores of the tasks of `evaluation.lm_eval_tasks`, each kept in `folder` as `<task>.jsonl`.

    Returns:
        `tasks`: by task its headline `metric`, `value`, `error`, `shots`, `questions`; and `average` of the values.

    Raises:
        ConfigError: the harness is missing, or knows no such task.
        DataError: a task's data set can't be loaded.
        StageError: the folder holds scores of another model or with other settings.
    """
    require_harness()
    bench = _Bench(cfg)
    found = {task: _kept(cfg, bench, task, folder) for task in cfg.evaluation.lm_eval_tasks}
    average = sum(score["value"] for score in found.values()) / len(found)
    return {"tasks": found, "average": average}


class _Bench:
    """Harness and model, each loaded when the first task needs it."""

    def __init__(self, cfg: OnlineConfig) -> None:
        self.cfg = cfg
        self._manager: TaskManager | None = None
        self._model: HFLM | None = None

    def run(self, task: str) -> list[TaskScore]:
        """The task's score first, then those of the tasks that it groups."""
        import lm_eval
        from datasets.exceptions import DatasetsError

        manager, model = self._tasks(), self._loaded_model()
        try:
            out = lm_eval.simple_evaluate(
                model=model, tasks=[task], task_manager=manager, num_fewshot=SHOTS.get(task),
                limit=self.cfg.evaluation.lm_eval_limit, log_samples=False,
            )  # fmt: skip
        except (OSError, DatasetsError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"The data set of the task {task} can't be loaded: {reason}. Load it once where the Hub can be reached "
                "and carry the cache over (HF_HOME), or describe one of your own in evaluation.lm_eval_include_path"
            ) from error
        results = dict(sorted(out["results"].items(), key=lambda item: item[0] != task))
        return [_score(name, result, out) for name, result in results.items()]

    def _tasks(self) -> TaskManager:
        if self._manager is None:
            self._manager = _task_manager(self.cfg.evaluation.lm_eval_tasks, self.cfg.evaluation.lm_eval_include_path)
        return self._manager

    def _loaded_model(self) -> HFLM:
        if self._model is None:
            import torch
            from lm_eval.models.huggingface import HFLM

            from cut_dist.model.load import choose_dtype, load_for_generation, load_tokenizer

            cfg = self.cfg
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            dtype = choose_dtype(cfg.train.precision, device)
            model = load_for_generation(cfg.model, dtype=dtype, device=device, seed=cfg.seed)
            tokenizer = load_tokenizer(cfg.model)
            self._model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=cfg.generator.batch_size)
        return self._model


def _task_manager(tasks: Sequence[str], include: str | None) -> TaskManager:
    from lm_eval.tasks import TaskManager

    if include is not None:
        own = TaskManager(include_path=include, include_defaults=False)
        if set(tasks) <= set(own.all_tasks):  # reading the thousands of others takes a quarter of a minute
            return own
    manager = TaskManager(include_path=include)
    for task in tasks:
        if task not in manager.all_tasks:
            match = nearest(task, manager.all_tasks)
            hint = f"; did you mean {match}?" if match else ""
            raise ConfigError(f"evaluation.lm_eval_tasks: lm-evaluation-harness has no task {task!r}{hint}")
    return manager


def _kept(cfg: OnlineConfig, bench: _Bench, task: str, folder: Path) -> dict[str, Any]:
    output = folder / f"{task}.jsonl"
    with open_stage("lm_eval", output, TaskScore, {}, _settings(cfg)) as stage:
        if not stage.done:
            scores = bench.run(task)
            stage.append(scores)
            stage.finish(scores, {"tasks": len(scores)})
    score = read_records(output, TaskScore)[0]
    name = score.headline
    return {
        "metric": name, "value": score.metrics[name], "error": score.errors.get(name),
        "shots": score.shots, "questions": score.questions,
    }  # fmt: skip


def _settings(cfg: OnlineConfig) -> dict[str, Any]:
    """What a score depends on beside its task."""
    include = cfg.evaluation.lm_eval_include_path
    own = sorted(Path(include).glob("**/*.yaml")) if include else []
    return {
        "model": weights_record(cfg),
        "tokenizer": cfg.model.tokenizer,
        "precision": cfg.train.precision,
        "limit": cfg.evaluation.lm_eval_limit,
        "own_tasks": {path.name: file_sha256(path) for path in own},
    }


def _score(name: str, result: Mapping[str, Any], out: Mapping[str, Any]) -> TaskScore:
    numbers = {key.removesuffix(",none"): value for key, value in result.items() if isinstance(value, (int, float))}
    own = ("sample_len", "sample_count")
    metrics = {key: value for key, value in numbers.items() if "_stderr" not in key and key not in own}
    errors = {key.replace("_stderr", ""): value for key, value in numbers.items() if "_stderr" in key}
    asked = out.get("n-samples", {}).get(name, {}).get("effective")
    return TaskScore(name, metrics, errors, asked, out.get("n-shot", {}).get(name), out.get("lm_eval_version", ""))
