"""What the `judge` section may hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cut_dist.config_check import ranged, require
from cut_dist.endpoint.config import EndpointConfig


@dataclass
class JudgeConfig:
    """Who judges the responses, and how."""

    name: Literal["verifiable", "endpoint", "local", "human"] = "verifiable"
    prompt: Literal["paper", "structured"] = "paper"  # `endpoint`: words and "Perfect.", or JSON by a schema
    max_new_tokens: int = ranged(512, at_least=1)  # of a judgment (`endpoint`, `local`)
    temperature: float = ranged(0.0, at_least=0)
    malformed_retries: int = ranged(2, at_least=0)  # how often a malformed reply is asked for again
    max_set_aside: float = ranged(0.2, at_least=0, at_most=1, why="share of responses without a verdict")
    cache: str | None = None  # SQLite file of an endpoint's replies; null: judgments.sqlite in the project's cache
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    model: str | None = None  # `local`: folder or Hub name of the judge
    template: Literal["alpaca", "chat"] = "alpaca"  # `local`: data.template of the judge's own training
    batch_size: int = ranged(8, at_least=1)  # `local`
    port: int | None = ranged(None, at_least=1, at_most=65535)  # `human`: of the page on this machine; null: a file

    def __post_init__(self) -> None:
        if self.name == "endpoint":
            self.endpoint.check_given("judge.endpoint")
        given = self.name != "local" or self.model is not None
        require(given, "judge.model", self.model, "judge=local needs the folder or Hub name of a model")
