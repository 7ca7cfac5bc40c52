"""Batched generation: what a response depends on, and what it does not."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch
from local_models import online_config, save_tiny
from transformers import GenerationConfig, LlamaForCausalLM

from cut_dist.config import ConfigError, ModelConfig
from cut_dist.data.templates import build_prompts
from cut_dist.data.triplets import DataError
from cut_dist.generators.base import GenerationRequest, ModelOutputError, stable_seed
from cut_dist.generators.batches import BatchSampler, Prompt, Sampling, eos_ids, plan_batches
from cut_dist.generators.hf import HfGenerator
from cut_dist.generators.make import make_generator
from cut_dist.generators.prompts import prompt_ids
from cut_dist.model.tiny import EOS, byte_tokenizer
from cut_dist.online.ranks import LauncherRanks

SETTINGS = ("generator.max_new_tokens=120", "generator.batch_size=3", "generator.temperature=1.0")


@pytest.fixture(scope="module")
def requests() -> list[GenerationRequest]:
    return [GenerationRequest(f"r{i}", "word " * (i * 7 % 10), stable_seed(0, f"r{i}")) for i in range(10)]


@pytest.fixture(scope="module")
def whole(requests):
    """All responses by id, from one start on one rank."""
    return by_id(HfGenerator(online_config(*SETTINGS), LauncherRanks()).generate(requests, set()))


def by_id(groups) -> dict:
    return {generation.id: generation for group in groups for generation in group}


def sampler_of(folder) -> BatchSampler:
    cfg = ModelConfig(name_or_path=str(folder))
    return BatchSampler(
        cfg, byte_tokenizer(), LauncherRanks(), precision="fp32", seed=0, batch_size_key="generator.batch_size"
    )


def test_batches_hold_like_lengths_and_do_not_depend_on_the_order_of_the_prompts():
    prompts = [Prompt(f"p{i}", [1] * (i % 4 + 1), i) for i in range(10)]
    batches = plan_batches(prompts, 4)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    lengths = [len(prompt.token_ids) for batch in batches for prompt in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert plan_batches(prompts[::-1], 4) == batches


def test_responses_end_at_eos_or_at_the_limit_and_say_how_they_were_sampled(requests, whole):
    assert set(whole) == {request.id for request in requests}
    reasons = Counter(generation.finish_reason for generation in whole.values())
    assert reasons["stop"] and reasons["length"], "the test needs responses of both kinds; take another seed"
    for generation in whole.values():
        assert EOS not in generation.response
        assert (generation.response_tokens == 120) or generation.finish_reason == "stop"
        assert generation.sampling["temperature"] == 1.0 and generation.sampling["precision"] == "float32"
    prompts = plan_batches([Prompt(r.id, prompt_ids(byte_tokenizer(), "alpaca", [r])[0], r.seed) for r in requests], 3)
    for batch in prompts:
        for row, prompt in enumerate(batch):
            assert (whole[prompt.id].sampling["seed"], whole[prompt.id].sampling["batch_row"]) == (batch[0].seed, row)
            assert whole[prompt.id].prompt_tokens == len(prompt.token_ids)


def test_an_interruption_after_any_batch_changes_nothing(requests, whole):
    generator = HfGenerator(online_config(*SETTINGS), LauncherRanks())
    groups = list(generator.generate(requests, set()))
    for stop in range(len(groups) + 1):
        first = by_id(groups[:stop])
        assert {**first, **by_id(generator.generate(requests, first.keys()))} == whole


def test_a_batch_that_was_written_down_in_part_is_sampled_again_whole(requests, whole):
    generator = HfGenerator(online_config(*SETTINGS), LauncherRanks())
    done = set(whole) - {"r4"}
    [group] = generator.generate(requests, done)
    assert len(group) == 3 and all(whole[generation.id] == generation for generation in group)
    assert list(generator.generate(requests, set(whole))) == []


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_ranks_share_the_batches_and_give_the_same_responses(requests, whole, world_size):
    cfg = online_config(*SETTINGS)
    ranks = [LauncherRanks(rank, world_size) for rank in range(world_size)]
    shares = [by_id(HfGenerator(cfg, each).generate(requests, set())) for each in ranks]
    assert sum(map(len, shares)) == len(requests)
    assert {id: generation for share in shares for id, generation in share.items()} == whole


def test_another_seed_gives_other_responses(requests, whole):
    others = [dataclasses.replace(request, seed=request.seed + 1) for request in requests]
    again = by_id(HfGenerator(online_config(*SETTINGS), LauncherRanks()).generate(others, set()))
    assert all(again[id].response != whole[id].response for id in whole)


@torch.no_grad()
def test_greedy_rows_of_a_padded_batch_are_those_of_plain_generation(tmp_path):
    """Padding changes the last bits of the logits; a random model has no ties that this would tip."""
    folder = save_tiny(tmp_path)
    prompts = [Prompt(str(n), list(range(40, 40 + n)), 0) for n in (3, 17, 29)]
    replies = sampler_of(folder).sample(prompts, Sampling(0.0, 1.0, 24))
    model = LlamaForCausalLM.from_pretrained(folder)
    for prompt, reply in zip(prompts, replies):
        ids = list(prompt.token_ids)
        for _ in range(24):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == byte_tokenizer().eos_token_id:
                break
        assert reply.text == byte_tokenizer().decode(ids[len(prompt.token_ids) :], skip_special_tokens=True)


def test_the_models_own_generation_config_does_not_come_in(tmp_path):
    own = GenerationConfig(do_sample=True, top_k=1, temperature=0.1, repetition_penalty=5.0, min_new_tokens=20,
                           eos_token_id=[257, 10, 256])  # fmt: skip
    prompts = [Prompt(str(n), list(range(40, 45 + n)), n) for n in range(4)]
    for sampling in (Sampling(1.0, 0.9, 60), Sampling(0.0, 1.0, 20)):
        plain = sampler_of(save_tiny(tmp_path / "plain")).sample(prompts, sampling)
        with_own = sampler_of(save_tiny(tmp_path / "own", generation=own)).sample(prompts, sampling)
        # the text may only end earlier: the model's <bos> (256) ends a response too, its "\n" (10) does not
        for one, other in zip(plain, with_own):
            assert one.text.startswith(other.text.rstrip("\ufffd"))
            assert one.text == other.text or other.finish_reason == "stop"
    assert eos_ids(byte_tokenizer(), own) == [256, 257]
    assert eos_ids(byte_tokenizer(), None) == eos_ids(byte_tokenizer(), GenerationConfig(eos_token_id=2)) == [257]


def test_top_p_keeps_to_the_likeliest_tokens(tmp_path):
    prompts = [Prompt("a", list(range(40, 60)), 7)]
    sampler = sampler_of(save_tiny(tmp_path))
    [narrow] = sampler.sample(prompts, Sampling(1.0, 1e-6, 20))
    [greedy] = sampler.sample(prompts, Sampling(0.0, 1.0, 20))
    assert narrow.text == greedy.text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error(tmp_path, temperature):
    sampler = sampler_of(save_tiny(tmp_path, lm_head=math.nan))
    with pytest.raises(ModelOutputError, match="logits are not finite.*train.precision=fp32"):
        sampler.sample([Prompt("a", [65, 66], 0)], Sampling(temperature, 1.0, 4))


def test_prompts_are_those_of_training():
    tokenizer, request = byte_tokenizer(), GenerationRequest("a", "Say <eos> ### Response:", 0)
    [ids] = prompt_ids(tokenizer, "alpaca", [request])
    assert ids == build_prompts(tokenizer, "alpaca", request.instruction, None, "Perfect.")["instruction"]
    assert tokenizer.eos_token_id not in ids
    with pytest.raises(DataError, match=r'1 prompt, control tokens of the chat template.*: a \("<eos>"\); take'):
        prompt_ids(tokenizer, "chat", [request])


def test_prompts_without_room_for_an_answer_are_named_before_the_model_is_loaded(requests):
    lengths = [len(ids) for ids in prompt_ids(byte_tokenizer(), "alpaca", requests)]
    cfg = online_config(f"generator.max_new_tokens={2048 - max(lengths) + 1}")
    with pytest.raises(DataError, match=rf"1 prompt, too long .* 2048 positions: r7 \({max(lengths)} tokens\); lower"):
        next(HfGenerator(cfg, LauncherRanks()).generate(requests, set()))


def test_the_generator_is_chosen_by_name(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    generator = make_generator(online_config())
    assert isinstance(generator, HfGenerator) and (generator.ranks.rank, generator.ranks.world_size) == (1, 4)


def test_memory_that_runs_out_is_said_with_the_key_to_change(tmp_path, monkeypatch):
    sampler = sampler_of(save_tiny(tmp_path))

    def no_memory(*_, **__):
        raise torch.OutOfMemoryError("made to fail")

    monkeypatch.setattr(sampler.model, "generate", no_memory)
    with pytest.raises(ConfigError, match="1 prompts at once .* lower generator.batch_size"):
        sampler.sample([Prompt("a", [65], 0)], Sampling(0.0, 1.0, 4))
