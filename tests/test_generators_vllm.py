"""What vLLM is asked for and what becomes of its answers, by a stand-in with the signatures of its offline API."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from types import SimpleNamespace

import pytest
from local_models import online_config, save_tiny

from cut_dist.config import ConfigError
from cut_dist.generators import vllm
from cut_dist.generators.base import GenerationRequest
from cut_dist.generators.make import make_generator
from cut_dist.generators.prompts import prompt_ids
from cut_dist.model.tiny import byte_tokenizer

REQUESTS = [GenerationRequest(f"r{n}", f"Say {n}", seed=100 + n) for n in range(5)]


@pytest.fixture
def engines(monkeypatch) -> list:
    """Installs the stand-in; gives the engines that were started, with the calls they got."""
    started = []

    class LLM:
        def __init__(self, model, *, tokenizer=None, dtype="auto", seed=0, tensor_parallel_size=1, **more):
            self.settings = {"model": model, "tokenizer": tokenizer, "dtype": dtype, "seed": seed,
                             "tensor_parallel_size": tensor_parallel_size, **more}  # fmt: skip
            self.calls = []
            started.append(self)

        def generate(self, prompts, sampling_params=None, *, use_tqdm=True):
            self.calls.append((prompts, sampling_params))
            return [
                SimpleNamespace(
                    prompt_token_ids=prompt["prompt_token_ids"],
                    outputs=[SimpleNamespace(token_ids=(72, 105, 257), finish_reason=self.reason, text="")],
                )
                for prompt in prompts
            ]

        reason = "stop"

    module = types.ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    return started


def config(folder, *overrides: str):
    name = f"model.name_or_path={folder}"
    return online_config("model=smollm2_135m", name, "generator=vllm", "generator.tensor_parallel=2", *overrides)


def test_the_engine_gets_training_prompts_and_a_seed_for_each_response(engines, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm, "_GROUP", 2)
    generator = make_generator(config(save_tiny(tmp_path), "generator.temperature=0.5", "generator.top_p=0.9"))
    groups = list(generator.generate(REQUESTS, done={"r1"}))
    assert [[generation.id for generation in group] for group in groups] == [["r0", "r2"], ["r3", "r4"]]
    [engine] = engines
    assert engine.settings == {
        "model": str(tmp_path), "tokenizer": None, "dtype": "bfloat16", "seed": 42, "tensor_parallel_size": 2,
        "generation_config": "vllm",
    }  # fmt: skip
    asked = [prompt["prompt_token_ids"] for prompts, _ in engine.calls for prompt in prompts]
    assert asked == prompt_ids(byte_tokenizer(), "alpaca", [REQUESTS[n] for n in (0, 2, 3, 4)])
    params = [vars(each) for _, sampling in engine.calls for each in sampling]
    assert [each["seed"] for each in params] == [100, 102, 103, 104]
    assert {each["temperature"] for each in params} == {0.5} and {each["top_p"] for each in params} == {0.9}
    assert all(each["top_k"] == 0 and each["max_tokens"] == 512 for each in params)
    assert all(each["stop_token_ids"] == [257] for each in params)
    first = groups[0][0]
    assert (first.response, first.finish_reason, first.response_tokens) == ("Hi", "stop", 3)
    assert first.prompt_tokens == len(asked[0]) and first.sampling["seed"] == 100


def test_nothing_left_to_do_starts_no_engine(engines, tmp_path):
    generator = make_generator(config(save_tiny(tmp_path)))
    assert list(generator.generate(REQUESTS, done={request.id for request in REQUESTS})) == []
    assert engines == []


def test_an_answer_that_vllm_gave_up_is_no_response(engines, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["vllm"].LLM, "reason", "abort")
    with pytest.raises(RuntimeError, match="ended the response r0 with 'abort'"):
        next(make_generator(config(save_tiny(tmp_path))).generate(REQUESTS, done=set()))


def test_without_vllm_the_remedy_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"vLLM is not installed. `pip install 'cut-dist\[serve\]'`.*generator=hf"):
        make_generator(config(tmp_path))


def test_a_random_model_is_refused(engines):
    with pytest.raises(ConfigError, match="a random model has no folder"):
        make_generator(online_config("generator=vllm"))
