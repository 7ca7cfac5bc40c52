"""Batched sampling with `transformers.generate`: what generator `hf` and judge `local` share.

A reply depends on its whole batch: one random state serves all rows, and padding changes the last bits of the logits.
So batches are cut from *all* prompts of a stage, each is seeded by itself, and one that was interrupted is sampled
again whole: replies depend neither on where the last start ended nor on the number of ranks. They do depend on the
batch size, on precision and machine, and on a CPU on the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from cut_dist.config import ConfigError, ModelConfig
from cut_dist.generators.base import ModelOutputError
from cut_dist.model.load import Tokenizer, choose_dtype, load_for_generation
from cut_dist.online.ranks import LauncherRanks


@dataclass(frozen=True)
class Prompt:
    """A prompt as token ids, and the seed of a batch that begins with it."""

    id: str
    token_ids: list[int]
    seed: int


@dataclass(frozen=True)
class Sampling:
    """How to sample; all that the model's own generation_config.json says beside is overridden."""

    temperature: float  # 0 is greedy
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Reply:
    """What the model said to one prompt; `tokens` counts the end-of-sequence token too."""

    id: str
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    tokens: int
    batch_seed: int
    batch_row: int


def plan_batches(prompts: Sequence[Prompt], batch_size: int) -> list[list[Prompt]]:
    """Cut prompts into batches of like lengths, the longest first, so that memory that runs out does so at once."""
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt.token_ids), prompt.id))
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def eos_ids(tokenizer: Tokenizer, generation_config: GenerationConfig | None) -> list[int]:
    """Where a reply ends: the tokenizer's EOS, and what else the model's own config ends at (Llama 3 has several).

    The latter only as far as the tokenizer knows it as a control token: a config's default may be any token.
    """
    own = generation_config.eos_token_id if generation_config else None
    own = own if isinstance(own, list) else [own]
    control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    control |= {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    return sorted({tokenizer.eos_token_id, *control.intersection(own)})


def decode(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """The text of a reply, without control tokens, and otherwise as it was sampled."""
    return tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def choose_device(ranks: LauncherRanks) -> torch.device:
    """This rank's GPU, or the CPU with this rank's share of the cores."""
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank)
        return torch.device("cuda", ranks.local_rank)
    if "OMP_NUM_THREADS" not in os.environ:  # else every rank would take all cores
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks.local_size))
    return torch.device("cpu")


class BatchSampler:
    """A model on this rank's device that answers batches of prompts.

    Args:
        cfg: the model.
        precision: as `train.precision`.
        seed: of random weights.
        batch_size_key: what to lower where memory runs out, for the message.
    """

    def __init__(
        self, cfg: ModelConfig, tokenizer: Tokenizer, ranks: LauncherRanks, *,
        precision: str, seed: int, batch_size_key: str,
    ) -> None:  # fmt: skip
        self.tokenizer = tokenizer
        self.device = choose_device(ranks)
        self.dtype = choose_dtype(precision, self.device)
        self.model = load_for_generation(cfg, dtype=self.dtype, device=self.device, seed=seed)
        self._eos = eos_ids(tokenizer, self.model.generation_config)
        self._pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._batch_size_key = batch_size_key
        # generate() fills what a call leaves open from here; nothing of the model's own may come in that way
        self.model.generation_config = GenerationConfig()

    def sample(self, batch: Sequence[Prompt], sampling: Sampling) -> list[Reply]:
        """One reply for each prompt, in order; a function of the batch, the model and the sampling alone.

        Raises:
            ModelOutputError: NaN or infinite logits.
            ConfigError: the batch does not fit into the device's memory.
        """
        seed = batch[0].seed
        torch.manual_seed(seed)
        try:
            replies = _generate(self.model, self._padded(batch), self._config(sampling))
        except torch.OutOfMemoryError as error:
            remedy = f"lower {self._batch_size_key}, and remove what the stage has written so far"
            raise ConfigError(f"{len(batch)} prompts at once are too many for {self.device}: {remedy}.") from error
        return [self._reply(prompt, ids, seed, row) for row, (prompt, ids) in enumerate(zip(batch, replies))]

    def _padded(self, batch: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask, (B, longest prompt) int64, padding on the left."""
        longest = max(len(prompt.token_ids) for prompt in batch)
        padding = [longest - len(prompt.token_ids) for prompt in batch]
        ids = [[self._pad] * count + prompt.token_ids for count, prompt in zip(padding, batch)]
        mask = [[0] * count + [1] * (longest - count) for count in padding]
        return {
            "input_ids": torch.tensor(ids, device=self.device),
            "attention_mask": torch.tensor(mask, device=self.device),
        }

    def _config(self, sampling: Sampling) -> GenerationConfig:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=self._eos,
            pad_token_id=self._pad,
            **(drawn if sampling.temperature > 0 else {"do_sample": False}),
        )

    def _reply(self, prompt: Prompt, ids: list[int], seed: int, row: int) -> Reply:
        ends = [position for position, token in enumerate(ids) if token in self._eos]
        reason, count = ("stop", ends[0] + 1) if ends else ("length", len(ids))
        text = decode(self.tokenizer, ids[: ends[0]] if ends else ids)
        return Reply(prompt.id, text, reason, len(prompt.token_ids), count, seed, row)


class _RefuseNonFinite(LogitsProcessor):
    """Greedy search would take NaN for an answer, and sampling end in an error that names no cause."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if not torch.isfinite(scores.max()):
            raise ModelOutputError(
                "the model's logits are not finite, so nothing can be sampled from it: are its weights those of a "
                "training that went wrong? train.precision=fp32 helps where only bf16 overflows"
            )
        return scores


@torch.no_grad()
def _generate(model: PreTrainedModel, inputs: dict[str, torch.Tensor], config: GenerationConfig) -> list[list[int]]:
    """New tokens of each row, with the padding that ended rows get."""
    refuse = LogitsProcessorList([_RefuseNonFinite()])
    out = model.generate(**inputs, generation_config=config, logits_processor=refuse)
    return out[:, inputs["input_ids"].shape[1] :].tolist()
