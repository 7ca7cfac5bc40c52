"""Which generator a configuration asks for. Each is imported only when it is the one."""

from __future__ import annotations

from cut_dist.generators.base import Generator
from cut_dist.online.config import OnlineConfig


def make_generator(cfg: OnlineConfig) -> Generator:
    """The generator of `generator.name`.

    Raises:
        ConfigError: it lacks a package or a setting.
    """
    return {"hf": _hf, "vllm": _vllm, "endpoint": _endpoint}[cfg.generator.name](cfg)


def _hf(cfg: OnlineConfig) -> Generator:
    from cut_dist.generators import hf

    return hf.make(cfg)


def _vllm(cfg: OnlineConfig) -> Generator:
    from cut_dist.generators import vllm

    return vllm.make(cfg)


def _endpoint(cfg: OnlineConfig) -> Generator:
    from cut_dist.generators import endpoint

    return endpoint.make(cfg)
