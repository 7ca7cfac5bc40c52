"""The client against a server on a real socket: retries, limits, remedies, keys, and what a stop keeps."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from openai_server import Answer, Server

from cut_dist.config_check import ConfigError
from cut_dist.endpoint import client as client_module
from cut_dist.endpoint.client import Client
from cut_dist.endpoint.config import EndpointConfig
from cut_dist.endpoint.errors import BudgetError, EndpointError, SetAside, Transient
from cut_dist.endpoint.protocol import Reply
from cut_dist.endpoint.store import Store
from cut_dist.endpoint.stream import stream

CANARY = "sk-canary-4f1d9b7e"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off in milliseconds, and a key that must never be seen."""
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(client_module, "_LONGEST_PAUSE_S", 0.02)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def echo(path: str, payload: dict[str, Any]) -> Answer:
    return Answer(payload["prompt"])


def faults(*answers: Answer) -> Any:
    """The first requests get these, the others the right answer."""
    return lambda number: answers[number] if number < len(answers) else None


def make(server: Server | str, folder: Path, **settings: Any) -> Client:
    url = server if isinstance(server, str) else server.base_url
    cfg = EndpointConfig(**{"base_url": url, "model": "m", "concurrency": 4, "timeout_s": 5.0, **settings})
    return Client(cfg, Store(folder / "store.sqlite"), "run")


async def say(client: Client, word: str) -> Reply:
    limit = {client.cfg.output_limit: 8}
    return await client.ask("completions", {"model": "m", "prompt": word, **limit})


def ask(client: Client, *words: str) -> list[str]:
    """The replies to some words, in order of their words; closes the client."""
    return sorted(reply.text for reply in stream(client, words, say))


BAD = {
    "HTTP 429": Answer("slow down", status=429),
    "HTTP 500": Answer("oops", status=500),
    "HTTP 503": Answer(raw=b"<html>unavailable</html>", status=503),
    "HTTP 408": Answer("too slow", status=408),
    "connection": Answer("half of this", drop=True),
    "garbled reply": Answer(raw=b'{"choices": [{"mess'),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_passing_failure_is_tried_again(tmp_path: Path, kind: str):
    with Server(echo, faults(BAD[kind], BAD[kind])) as server:
        client = make(server, tmp_path)
        assert ask(client, "a") == ["a"]
    assert client.summary() == {"answered": 1, kind: 2, "cost": 0.0, "spent": 0.0}
    assert len(server.seen) == 3


def test_a_slow_answer_is_given_up_and_asked_for_again(tmp_path: Path):
    with Server(echo, faults(Answer("late", delay=30))) as server:
        client = make(server, tmp_path, timeout_s=0.5)
        assert ask(client, "a") == ["a"]
    assert client.counts["timeout"] == 1 and [each.outcome for each in server.seen] == ["gone", "answered"]


def test_retry_after_is_waited_for(tmp_path: Path):
    with Server(echo, faults(Answer("wait", status=429, headers={"Retry-After": "1"}))) as server:
        ask(make(server, tmp_path), "a")
    first, second = server.seen
    assert second.at - first.at >= 1.0


def test_a_wait_of_hours_stops_the_run(tmp_path: Path):
    with (
        Server(echo, faults(Answer("daily limit", status=429, headers={"Retry-After": "7200"}))) as server,
        pytest.raises(EndpointError, match="7,200 s.*daily limit.*kept"),
    ):
        ask(make(server, tmp_path), "a")


def test_attempts_are_capped_and_a_server_that_answers_nobody_stops_the_run(tmp_path: Path):
    with Server(echo, lambda number: BAD["HTTP 500"]) as server:
        with pytest.raises(EndpointError, match=r"no reply after 5 attempts, the last: HTTP 500: oops.*up\?"):
            ask(make(server, tmp_path, max_attempts=5), "a")
        assert len(server.seen) == 5


def test_no_server_at_all(tmp_path: Path):
    with pytest.raises(EndpointError, match="no reply after 3 attempts.*ConnectError.*127.0.0.1:9"):
        ask(make("http://127.0.0.1:9/v1", tmp_path, max_attempts=3), "a")


def test_a_request_that_fails_while_others_succeed_is_set_aside(tmp_path: Path):
    async def carefully(client: Client, word: str) -> str:
        try:
            return (await say(client, word)).text
        except SetAside as error:
            return str(error)

    def poisoned(path: str, payload: dict[str, Any]) -> Answer:
        return BAD["HTTP 500"] if payload["prompt"] == "poison" else Answer(payload["prompt"])

    with Server(poisoned) as server:
        words = ["poison", *map(str, range(200))]
        results = list(stream(make(server, tmp_path, max_attempts=4), words, carefully))
        assert Counter(each.payload["prompt"] for each in server.seen)["poison"] == 4
    assert "no reply after 4 attempts, the last: HTTP 500: oops" in results and len(results) == 201


def test_a_server_that_stays_pressed_stops_the_run_instead_of_losing_a_request(tmp_path: Path):
    def pressed(path: str, payload: dict[str, Any]) -> Answer:
        return BAD["HTTP 429"] if payload["prompt"] == "unlucky" else Answer("ok")

    with Server(pressed) as server, pytest.raises(EndpointError, match="pressed too hard.*requests_per_minute"):
        ask(make(server, tmp_path, max_attempts=3), "unlucky", *map(str, range(50)))


@pytest.mark.parametrize(
    "status, says",
    [(400, "takes no such request"), (401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "'m'")],
)
def test_a_final_failure_stops_at_once_with_a_remedy_and_without_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, says: str
):
    refusal = Answer(f"Incorrect API key provided: {CANARY}", status=status)
    with caplog.at_level(logging.DEBUG), Server(echo, lambda number: refusal) as server:
        with pytest.raises(EndpointError) as caught:
            ask(make(server, tmp_path), *map(str, range(100)))
        assert len(server.seen) <= 8  # those of the first moment; nothing was sent after the first refusal
        assert server.seen[0].headers["authorization"] == f"Bearer {CANARY}"
    text = f"{caught.getrepr(chain=True)} {caplog.text} {(tmp_path / 'store.sqlite').read_bytes()}"
    assert says in str(caught.value) and "Incorrect API key provided: ***" in str(caught.value)
    assert CANARY not in text


def test_no_key_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with Server(echo) as server:
        ask(make(server, tmp_path), "a")
    assert "authorization" not in server.seen[0].headers


def test_a_key_that_can_not_be_sent_is_refused_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-käy")
    with pytest.raises(EndpointError, match="OPENAI_API_KEY") as caught:
        make("http://127.0.0.1:9/v1", tmp_path)
    assert "käy" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://user:sk-secret@host/v1", "https://sk-secret@host/v1"])
def test_a_key_in_the_url_is_refused_unseen(url: str):
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        EndpointConfig(base_url=url, model="m")
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "http://host:port/v1", "http://host:99999/v1"])
def test_what_is_no_url_is_refused(url: str):
    with pytest.raises(ConfigError, match="endpoint.base_url"):
        EndpointConfig(base_url=url, model="m")


def test_no_more_are_under_way_than_the_concurrency_and_no_fewer(tmp_path: Path):
    with Server(echo, latency=0.05) as server:
        assert len(ask(make(server, tmp_path, concurrency=6), *map(str, range(60)))) == 60
    assert server.most_under_way == 6


def test_the_rate_limit_is_kept(tmp_path: Path):
    """A minute is too long for a test: that no request goes out beyond the limit is seen, the waiting is in
    test_endpoint_rate.py."""
    with Server(echo) as server:
        results = stream(make(server, tmp_path, requests_per_minute=5), map(str, range(50)), say)
        assert len(list(itertools.islice(results, 5))) == 5
        time.sleep(0.2)
        results.close()
        assert len(server.seen) == 5


def test_tokens_are_reserved_at_their_most_and_set_right_by_the_servers_count(tmp_path: Path):
    with Server(echo) as server:  # a request: 11 tokens of body guessed and 8 of output; the server counts 15
        results = stream(make(server, tmp_path, tokens_per_minute=66, concurrency=1), map(str, range(50)), say)
        assert len(list(itertools.islice(results, 4))) == 4  # the fourth fits since three have cost 45, not 57
        time.sleep(0.5)
        results.close()
        assert len(server.seen) == 4


def test_a_reply_is_paid_for_once_whatever_the_number_of_askers_and_starts(tmp_path: Path):
    with Server(echo, latency=0.02) as server:
        assert ask(make(server, tmp_path), *["a"] * 20) == ["a"] * 20
        again = make(server, tmp_path)
        assert ask(again, "a", "b") == ["a", "b"]
        assert len(server.seen) == 2
    assert again.counts == {"answered": 2, "from_store": 1}


def test_the_budget_stops_before_it_is_exceeded_and_over_restarts(tmp_path: Path):
    # Each request: 10 prompt and 5 completion tokens, 10 * $100 + 5 * $200 a million = $0.002; at most about $0.0131.
    priced = {"input_price": 100.0, "output_price": 200.0, "concurrency": 3}
    words = [f"{number:03}" for number in range(200)]
    with Server(echo) as server:
        for start in range(3):
            client = make(server, tmp_path, budget=0.05, **priced)
            with pytest.raises(BudgetError, match=r"raise endpoint.budget"):
                ask(client, *words)
            paid = len(server.seen) * 0.002
            assert client.budget.spent == pytest.approx(paid) and paid <= 0.05
            assert paid > 0.05 - 0.014  # it stops because the next one might not fit, not earlier
            assert client.summary()["cost"] == pytest.approx(paid if start == 0 else 0.0)
        client = make(server, tmp_path, budget=1.0, **priced)
        assert ask(client, *words) == words
        assert len(server.seen) == 200 and client.budget.spent == pytest.approx(0.4)


def test_where_the_server_counts_no_tokens_the_most_is_taken_as_spent(tmp_path: Path):
    uncounted = Answer(raw=b'{"choices": [{"text": "a"}]}')
    with Server(lambda path, payload: uncounted) as server:
        client = make(server, tmp_path, input_price=100.0, output_price=200.0, budget=1.0)
        assert ask(client, "a") == ["a"]
    body = b'{"max_tokens":8,"model":"m","prompt":"a"}'
    assert client.budget.spent == pytest.approx(((len(body) + 64) * 100 + 8 * 200) / 1e6)


def test_back_off_grows_while_nobody_is_answered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_S", 1.0)
    monkeypatch.setattr(client_module, "_LONGEST_PAUSE_S", 8.0)
    for failed_alone, most in enumerate([1, 1, 2, 4, 8, 8]):
        pauses = [client_module._pause(failed_alone, Transient("timeout", "")) for _ in range(50)]
        assert most / 2 <= min(pauses) < max(pauses) <= most
    assert 3.5 <= client_module._pause(1, Transient("HTTP 429", "", retry_after=3.0)) <= 4


def test_replies_under_way_are_kept_when_the_caller_stops(tmp_path: Path):
    with Server(echo, latency=0.3) as server:
        results = stream(make(server, tmp_path), map(str, range(100)), say)
        next(results)
        results.close()  # as Ctrl-C or an error in the caller does
        assert server.under_way == 0
        answered = server.outcomes("answered")
        assert 4 <= len(answered) <= 8
    store = Store(tmp_path / "store.sqlite")
    assert all(store.reply(key) for key in answered)
    store.close()


def test_an_error_of_the_work_itself_reaches_the_caller(tmp_path: Path):
    async def broken(client: Client, word: str) -> str:
        await asyncio.sleep(0)
        raise ZeroDivisionError(word)

    with Server(echo) as server, pytest.raises(ZeroDivisionError):
        list(stream(make(server, tmp_path), "abc", broken))
