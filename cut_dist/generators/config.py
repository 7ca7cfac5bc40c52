"""What the `generator` section may hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cut_dist.config_check import ranged, require
from cut_dist.endpoint.config import EndpointConfig


@dataclass
class GeneratorConfig:
    """Who answers the instructions, and how responses are sampled."""

    name: Literal["hf", "vllm", "endpoint"] = "hf"
    temperature: float = ranged(0.7, at_least=0, why="0 is greedy")
    top_p: float = ranged(1.0, above=0, at_most=1)
    max_new_tokens: int = ranged(512, at_least=1)
    samples: int = ranged(1, at_least=1)  # responses to each instruction
    batch_size: int = ranged(16, at_least=1)  # responses that `hf` samples together on one rank
    tensor_parallel: int = ranged(1, at_least=1)  # GPUs that hold one model together under `vllm`
    api: Literal["chat", "completions"] = "chat"  # `endpoint` only: who writes the prompt, the server or data.template
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    # `endpoint` in online rounds: the command of a server of the round's own model, with {model} and {port} in it
    serve: list[str] = field(default_factory=list)
    serve_timeout_s: float = ranged(900.0, above=0)  # from its start to its first answer

    def __post_init__(self) -> None:
        if self.serve:
            self._check_serve()
        elif self.name == "endpoint":
            self.endpoint.check_given("generator.endpoint")

    def _check_serve(self) -> None:
        model, command = self.endpoint.model, " ".join(self.serve)
        require(self.name == "endpoint", "generator.serve", self.serve, "is for generator=endpoint")
        placed = "{model}" in command and "{port}" in command
        require(placed, "generator.serve", self.serve, "must have {model} and {port} where those belong")
        remedy = "give the name that generator.serve gives the model"
        require(bool(model), "generator.endpoint.model", model, remedy)
