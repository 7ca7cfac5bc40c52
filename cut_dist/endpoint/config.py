"""How to reach a server that speaks OpenAI's protocol, and how hard to press it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from cut_dist.config_check import ConfigError, ranged, require


@dataclass
class EndpointConfig:
    """A server that speaks OpenAI's protocol: vLLM's, a provider's, any other."""

    base_url: str | None = None  # with the version, http://localhost:8000/v1
    model: str | None = None  # as the server calls it
    # Name of the environment variable that holds the key; the key itself never stands in a configuration.
    api_key_variable: str = "OPENAI_API_KEY"
    output_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # what the server calls it
    concurrency: int = ranged(16, at_least=1)  # requests under way at once
    timeout_s: float = ranged(120.0, above=0)  # of one attempt
    # With 30 % of the attempts failing, one request in two million fails twelve times.
    max_attempts: int = ranged(12, at_least=1, why="transport errors, 429 and 5xx are tried again with back-off")
    requests_per_minute: float | None = ranged(None, at_least=1)
    tokens_per_minute: float | None = ranged(None, at_least=1)
    input_price: float = ranged(0.0, at_least=0)  # US dollars a million prompt tokens
    output_price: float = ranged(0.0, at_least=0)  # US dollars a million completion tokens
    budget: float | None = ranged(None, at_least=0)  # US dollars; the stage stops before it would be exceeded

    def __post_init__(self) -> None:
        if self.base_url is not None:
            self._check_url(self.base_url)
        priced = self.budget is None or self.input_price > 0 or self.output_price > 0
        remedy = "needs endpoint.input_price and endpoint.output_price to count by"
        require(priced, "endpoint.budget", self.budget, remedy)

    def check_given(self, section: str) -> None:
        """Refuse an endpoint that names no server or no model; `section` is its place, for the message."""
        for key in ("base_url", "model"):
            require(bool(getattr(self, key)), f"{section}.{key}", getattr(self, key), f"{section} needs it: give one")

    def _check_url(self, url: str) -> None:
        require(
            url.startswith(("http://", "https://")), "endpoint.base_url", url, "must begin with http:// or https://"
        )
        try:
            parts = urlsplit(url)
            host = parts.hostname if parts.port != 0 else None
        except ValueError:
            host = None
        require(host is not None, "endpoint.base_url", url, "names no host and port: http://localhost:8000/v1")
        if "@" in parts.netloc:  # not repeated in the message, it is a secret
            raise ConfigError(
                "endpoint.base_url holds a user name or a password: take it out, and put the key into the environment "
                f"variable {self.api_key_variable}."
            )
