"""The endpoint generator: what is sent and recorded, restarts, and a real (random) model behind the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from openai_server import Answer, Server, model_script
from transformers import LlamaConfig, LlamaForCausalLM

from cut_dist.config import ConfigError
from cut_dist.config_compose import compose_config
from cut_dist.data.templates import render_prompt
from cut_dist.endpoint.config import EndpointConfig
from cut_dist.endpoint.errors import EndpointError
from cut_dist.generators import endpoint
from cut_dist.generators.base import Generation, GenerationRequest
from cut_dist.generators.config import GeneratorConfig
from cut_dist.generators.endpoint import EndpointGenerator
from cut_dist.model.tiny import byte_tokenizer
from cut_dist.online.config import OnlineConfig

REQUESTS = [GenerationRequest(f"i{number}", f"Say {number}.", seed=100 + number) for number in range(6)]


def make(server: Server, folder: Path, **settings: Any) -> EndpointGenerator:
    reach = EndpointConfig(base_url=server.base_url, model="policy", concurrency=4, timeout_s=30.0)
    cfg = GeneratorConfig(name="endpoint", endpoint=reach, **{"max_new_tokens": 12, **settings})
    render = (lambda instruction: render_prompt(None, "alpaca", instruction)) if cfg.api == "completions" else None
    return EndpointGenerator(cfg, folder / "replies.sqlite", render=render)


def responses(generator: EndpointGenerator, done: set[str] = frozenset()) -> dict[str, Generation]:
    return {each.id: each for group in generator.generate(REQUESTS, done) for each in group}


@pytest.fixture(scope="module")
def model_server() -> Server:
    """A random Llama that has a byte tokenizer."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=512, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with Server(model_script(LlamaForCausalLM(config).eval(), tokenizer), blocking=True) as server:
        yield server


def test_what_is_sent_by_each_api(tmp_path: Path):
    with Server(lambda path, payload: Answer("so")) as server:
        responses(make(server, tmp_path, temperature=0.3, top_p=0.8))
        responses(make(server, tmp_path, api="completions"))
    chat = {each.payload["seed"]: each for each in server.seen[:6]}
    assert sorted(chat) == [100, 101, 102, 103, 104, 105]
    assert chat[102].path == "chat/completions" and chat[102].payload == {
        "model": "policy", "messages": [{"role": "user", "content": "Say 2."}], "temperature": 0.3, "top_p": 0.8,
        "seed": 102, "max_tokens": 12,
    }  # fmt: skip
    assert {each.path for each in server.seen[6:]} == {"completions"}
    prompts = [each.payload["prompt"] for each in server.seen[6:]]
    assert any(prompt.endswith("### Instruction:\nSay 2.\n\n### Response:\n") for prompt in prompts)


def test_what_is_recorded(tmp_path: Path):
    with Server(lambda path, payload: Answer(" so", "length", 9, 12)) as server:
        recorded = responses(make(server, tmp_path))["i3"]
    assert recorded == Generation(
        id="i3", response=" so", finish_reason="length", prompt_tokens=9, response_tokens=12,
        sampling={
            "generator": "endpoint", "model": "policy", "api": "chat", "temperature": 0.7, "top_p": 1.0,
            "max_new_tokens": 12, "seed": 103,
        },
    )  # fmt: skip


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_model_answers_and_a_seed_says_what(tmp_path: Path, model_server: Server, api: str):
    first = responses(make(model_server, tmp_path / "a", api=api))
    again = responses(make(model_server, tmp_path / "b", api=api))
    assert set(first) == {each.id for each in REQUESTS} and first == again
    assert len({each.response for each in first.values()}) > 1
    for each in first.values():
        assert 1 <= each.response_tokens <= 12 and each.prompt_tokens > 20
        assert each.finish_reason == "stop" or (each.finish_reason, each.response_tokens) == ("length", 12)


def test_what_is_done_is_not_asked_for_and_what_was_paid_for_is_kept(tmp_path: Path, model_server: Server):
    before = len(model_server.seen)
    groups = make(model_server, tmp_path).generate(REQUESTS, set())
    first = next(groups)[0]
    groups.close()
    paid = len(model_server.seen) - before
    rest = responses(make(model_server, tmp_path), done={first.id})
    assert first.id not in rest and len(rest) == 5
    assert len(model_server.seen) - before == 6 and paid >= 1
    straight = responses(make(model_server, tmp_path / "straight"))
    assert {first.id: first} | rest == straight


def test_an_instruction_that_is_too_long_is_set_aside_by_name(tmp_path: Path, model_server: Server):
    requests = [GenerationRequest("long", "x" * 600, 1), *REQUESTS]
    answered = []
    with pytest.raises(EndpointError, match=r"1 instruction got no response.*\n  long: .*maximum context length"):
        for group in make(model_server, tmp_path).generate(requests, set()):
            answered += [each.id for each in group]
    assert sorted(answered) == [each.id for each in REQUESTS]


def test_a_response_that_the_server_cut_short_is_set_aside(tmp_path: Path):
    said = "6 instructions got no response.*\n  i0: .*content_filter"
    refusing = Server(lambda path, payload: Answer("", "content_filter"))
    with refusing as server, pytest.raises(EndpointError, match=said):
        responses(make(server, tmp_path))


def test_the_completions_api_takes_no_chat_template():
    reach = ["generator.endpoint.base_url=http://x", "generator.endpoint.model=m", "stage.output=x.jsonl"]
    cfg = compose_config(
        "online", ["generator=endpoint", "generator.api=completions", "data.template=chat", *reach], OnlineConfig
    )
    with pytest.raises(ConfigError, match="generator.api=chat"):
        endpoint.make(cfg)


def test_a_run_has_one_budget_over_its_stages_and_replies_of_each_apart(tmp_path: Path):
    def stage(number: int) -> EndpointGenerator:
        output = tmp_path / "online" / "x" / f"round_{number}" / "responses.jsonl"
        reach = [f"generator.endpoint.base_url={server.base_url}", "generator.endpoint.model=m"]
        run = [f"run.root={tmp_path}", "run.experiment=online", "run.name=x", "data.template=chat"]
        # each response 10 and 5 tokens: $0.002
        price = [f"generator.endpoint.{key}" for key in ("input_price=100", "output_price=200", "budget=0.1")]
        overrides = ["generator=endpoint", "generator.max_new_tokens=8", f"stage.output={output}", *reach, *run, *price]
        return endpoint.make(compose_config("online", overrides, OnlineConfig))

    with Server(lambda path, payload: Answer("so")) as server:
        for number in range(1, 4):
            generator = stage(number)
            assert [each.sampling["cost"] for each in responses(generator).values()] == [pytest.approx(0.002)] * 6
            assert generator.summary["spent"] == pytest.approx(number * 0.012)
            assert generator.summary["cost"] == pytest.approx(0.012)
        assert len(server.seen) == 18  # the same requests in each round, to another model each time
