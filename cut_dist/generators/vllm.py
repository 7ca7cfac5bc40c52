"""Generator `vllm`: vLLM's offline engine in this process (extra `serve`), with a seed for each response.

vLLM batches as it goes, so a response is a function of its seed only up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from importlib.util import find_spec
from typing import Any

from cut_dist.config import ConfigError
from cut_dist.generators.base import Generation, GenerationRequest
from cut_dist.generators.prompts import prompt_ids, require_room
from cut_dist.online.config import OnlineConfig

_GROUP = 512  # requests handed over at once, then written down; enough to keep a GPU full to the end of most of them
_DTYPES = {"auto": "bfloat16", "bf16": "bfloat16", "fp32": "float32"}  # as the trainer on GPUs


def make(cfg: OnlineConfig) -> VllmGenerator:
    """The generator, once it is sure that vLLM is there and can load the model.

    Raises:
        ConfigError: vLLM is not installed, or there is no model folder for it.
    """
    if find_spec("vllm") is None:
        raise ConfigError(
            "generator.name=vllm: vLLM is not installed. `pip install 'cut-dist[serve]'` on a machine with GPUs, or "
            "take generator=hf, which needs nothing else."
        )
    remedy = "a random model has no folder that vLLM could load; take generator=hf"
    if cfg.model.random_init is not None or cfg.model.tokenizer == "bytes":
        raise ConfigError(f"generator.name=vllm: {remedy}.")
    return VllmGenerator(cfg)


class VllmGenerator:
    """All requests that are not done, in groups; the engine starts with the first."""

    def __init__(self, cfg: OnlineConfig) -> None:
        self.cfg = cfg

    def generate(self, requests: Sequence[GenerationRequest], done: Set[str]) -> Iterator[Sequence[Generation]]:
        """See `generators.base.Generator`."""
        from cut_dist.model.load import load_tokenizer, position_limit

        cfg = self.cfg
        tokenizer = load_tokenizer(cfg.model)
        waiting = [request for request in requests if request.id not in done]
        ids = prompt_ids(tokenizer, cfg.data.template, waiting)
        lengths = {request.id: len(each) for request, each in zip(waiting, ids)}
        require_room(lengths, cfg.generator.max_new_tokens, position_limit(cfg.model), "generator.max_new_tokens")
        if not waiting:
            return
        engine, stops = self._engine(), self._stops(tokenizer)
        for begin in range(0, len(waiting), _GROUP):
            group = waiting[begin : begin + _GROUP]
            prompts = [{"prompt_token_ids": each} for each in ids[begin : begin + _GROUP]]
            outputs = engine.generate(prompts, [self._params(request, stops) for request in group], use_tqdm=False)
            yield [self._generation(*pair, tokenizer) for pair in zip(group, outputs, strict=True)]

    def _engine(self) -> Any:
        from vllm import LLM

        from cut_dist.model.resolve import resolve_model

        cfg = self.cfg
        return LLM(
            model=resolve_model(cfg.model.name_or_path, cfg.model.revision),
            tokenizer=resolve_model(cfg.model.tokenizer) if cfg.model.tokenizer else None,
            dtype=_DTYPES[cfg.train.precision],
            seed=cfg.seed,
            tensor_parallel_size=cfg.generator.tensor_parallel,
            generation_config="vllm",  # not the model's own top_k, penalties and the like
        )

    def _stops(self, tokenizer: Any) -> list[int]:
        from transformers import GenerationConfig

        from cut_dist.generators.batches import eos_ids
        from cut_dist.model.resolve import resolve_model

        folder = resolve_model(self.cfg.model.name_or_path, self.cfg.model.revision)
        try:
            own = GenerationConfig.from_pretrained(folder)
        except OSError:  # a model need not have one
            own = None
        return eos_ids(tokenizer, own)

    def _params(self, request: GenerationRequest, stops: list[int]) -> Any:
        from vllm import SamplingParams

        settings = self.cfg.generator
        return SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=0,
            max_tokens=settings.max_new_tokens,
            seed=request.seed,
            stop_token_ids=stops,
            detokenize=False,  # the text is made here, as for every generator
        )

    def _generation(self, request: GenerationRequest, output: Any, tokenizer: Any) -> Generation:
        from cut_dist.generators.batches import decode

        cfg, settings = self.cfg, self.cfg.generator
        [best] = output.outputs
        if best.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended the response {request.id} with {best.finish_reason!r}, not with an answer")
        how = {
            "generator": "vllm",
            "model": cfg.model.name_or_path,
            "template": cfg.data.template,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_new_tokens": settings.max_new_tokens,
            "precision": _DTYPES[cfg.train.precision],
            "seed": request.seed,
        }
        text = decode(tokenizer, list(best.token_ids))
        prompt_tokens = len(output.prompt_token_ids)
        return Generation(request.id, text, best.finish_reason, prompt_tokens, len(best.token_ids), how)
