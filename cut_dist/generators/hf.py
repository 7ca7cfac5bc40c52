"""Generator `hf`: `transformers.generate` on the model at hand, each rank a share of the batches.

Every rank holds the whole model; one that is larger than a GPU wants `vllm` or `endpoint`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from cut_dist.generators.base import Generation, GenerationRequest
from cut_dist.generators.batches import BatchSampler, Prompt, Reply, Sampling, plan_batches
from cut_dist.generators.prompts import prompt_ids, require_room
from cut_dist.model.load import load_tokenizer, position_limit
from cut_dist.online.config import OnlineConfig
from cut_dist.online.ranks import LauncherRanks


def make(cfg: OnlineConfig) -> HfGenerator:
    """The generator of this rank, by the launcher's environment."""
    return HfGenerator(cfg, LauncherRanks.of_environment())


class HfGenerator:
    """Answers batch by batch. The weights are loaded when the first batch is due, not where nothing is left to do."""

    def __init__(self, cfg: OnlineConfig, ranks: LauncherRanks) -> None:
        self.cfg, self.ranks = cfg, ranks
        self.tokenizer = load_tokenizer(cfg.model)
        settings = cfg.generator
        self.sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)

    def generate(self, requests: Sequence[GenerationRequest], done: Set[str]) -> Iterator[Sequence[Generation]]:
        """This rank's share of the batches that have an unanswered request; see `generators.base.Generator`."""
        cfg = self.cfg
        ids = prompt_ids(self.tokenizer, cfg.data.template, requests)
        lengths = {request.id: len(each) for request, each in zip(requests, ids)}
        require_room(lengths, cfg.generator.max_new_tokens, position_limit(cfg.model), "generator.max_new_tokens")
        prompts = [Prompt(request.id, each, request.seed) for request, each in zip(requests, ids)]
        batches = plan_batches(prompts, cfg.generator.batch_size)
        unanswered = [batch for batch in batches if any(prompt.id not in done for prompt in batch)]
        own = unanswered[self.ranks.rank :: self.ranks.world_size]
        if not own:
            return
        sampler = BatchSampler(
            cfg.model, self.tokenizer, self.ranks, precision=cfg.train.precision, seed=cfg.seed,
            batch_size_key="generator.batch_size",
        )  # fmt: skip
        for batch in own:
            yield [self._generation(reply, sampler) for reply in sampler.sample(batch, self.sampling)]

    def _generation(self, reply: Reply, sampler: BatchSampler) -> Generation:
        cfg = self.cfg
        how = {
            "generator": "hf",
            "model": cfg.model.name_or_path,
            "template": cfg.data.template,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "max_new_tokens": self.sampling.max_new_tokens,
            "precision": str(sampler.dtype).removeprefix("torch."),
            "batch_size": cfg.generator.batch_size,
            "seed": reply.batch_seed,  # of the batch
            "batch_row": reply.batch_row,
        }
        return Generation(reply.id, reply.text, reply.finish_reason, reply.prompt_tokens, reply.tokens, how)
