"""How to reach a server that speaks OpenAI's protocol, and how hard to press it."""

from __future__ import annotations

from dataclasses import dataclass

from cut_dist.config_check import ranged, require


@dataclass
class EndpointConfig:
    """A server that speaks OpenAI's protocol: vLLM's, a provider's, any other."""

    base_url: str | None = None  # with the version, http://localhost:8000/v1
    model: str | None = None  # as the server calls it
    # Name of the environment variable that holds the key; the key itself never stands in a configuration.
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = ranged(16, at_least=1)  # requests under way at once
    timeout_s: float = ranged(120.0, above=0)  # of one attempt
    max_attempts: int = ranged(8, at_least=1, why="transport errors, 429 and 5xx are tried again with back-off")
    requests_per_minute: float | None = ranged(None, above=0)
    tokens_per_minute: float | None = ranged(None, above=0)
    input_price: float = ranged(0.0, at_least=0)  # US dollars a million prompt tokens
    output_price: float = ranged(0.0, at_least=0)  # US dollars a million completion tokens
    budget: float | None = ranged(None, at_least=0)  # US dollars; the stage stops before it would be exceeded

    def __post_init__(self) -> None:
        plain = self.base_url is None or self.base_url.startswith(("http://", "https://"))
        require(plain, "endpoint.base_url", self.base_url, "must begin with http:// or https://")
        priced = self.budget is None or self.input_price > 0 or self.output_price > 0
        remedy = "needs endpoint.input_price and endpoint.output_price to count by"
        require(priced, "endpoint.budget", self.budget, remedy)

    def check_given(self, section: str) -> None:
        """Refuse an endpoint that names no server or no model; `section` is its place, for the message."""
        for key in ("base_url", "model"):
            require(bool(getattr(self, key)), f"{section}.{key}", getattr(self, key), f"{section} needs it: give one")
