"""What the `evaluation` section may hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cut_dist.config_check import ranged, require

Suite = Literal["verifiable", "alpaca_eval", "lm_eval", "rouge", "win_rate"]
_ANSWERS = ("limit", "max_new_tokens")
_KEYS: dict[Suite, tuple[str, ...]] = {  # what the numbers of a suite depend on
    "verifiable": _ANSWERS,
    "alpaca_eval": (*_ANSWERS, "alpaca_eval_path"),
    "lm_eval": ("lm_eval_tasks", "lm_eval_limit", "lm_eval_include_path"),
    "rouge": (*_ANSWERS, "rouge_path", "rouge_reference"),
    "win_rate": (*_ANSWERS, "rival"),
}


@dataclass
class EvaluationConfig:
    """What is measured of a model by letting it answer."""

    suites: list[Suite] = field(default_factory=lambda: ["verifiable"])
    max_new_tokens: int = ranged(512, at_least=1)  # of an answer; the paper takes 2048
    alpaca_eval_path: str | None = None  # instructions of AlpacaEval, its own JSON
    lm_eval_tasks: list[str] = field(default_factory=lambda: ["arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2"])
    lm_eval_limit: int | None = ranged(None, at_least=1)  # questions of each task; null: all
    lm_eval_include_path: str | None = None  # folder of task files of one's own
    rouge_path: str | None = None  # test split of the summarization critiques
    rouge_reference: Literal["refinement", "answer"] = "refinement"  # what answers are compared with
    rival: str | None = None  # `win_rate`: responses.jsonl of the other model, to the same instructions
    limit: int | None = ranged(None, at_least=1)  # instructions of each suite; null: all

    def __post_init__(self) -> None:
        tasks = self.lm_eval_tasks
        require(bool(tasks) or "lm_eval" not in self.suites, "evaluation.lm_eval_tasks", tasks, "name one at least")
        needs = {"alpaca_eval": "alpaca_eval_path", "rouge": "rouge_path", "win_rate": "rival"}
        for suite, key in needs.items():
            given = suite not in self.suites or getattr(self, key) is not None
            require(given, f"evaluation.{key}", None, f"the suite {suite} reads it: give a file")

    def of_suite(self, suite: Suite) -> dict[str, Any]:
        """The keys that the numbers of one suite depend on, with their values."""
        return {key: getattr(self, key) for key in _KEYS[suite]}
