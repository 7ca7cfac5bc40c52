"""Replies of OpenAI's protocol, and what each failure means: for the attempt, for the request, for the run."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import pytest

from cut_dist.endpoint.errors import EndpointError, SetAside, Transient
from cut_dist.endpoint.protocol import Reply, encode, failure, read_reply, request_key

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def chat(**message: object) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE}).encode()


def fail(status: int, message: str = "no", code: str | None = None, **headers: str) -> Exception:
    body = json.dumps({"error": {"message": message, "code": code, "type": None}}).encode()
    return failure(status, headers, body, model="m", key_variable="MY_KEY")


def test_replies_of_both_apis_are_read():
    assert read_reply(chat(content="Perfect."), 0) == Reply("Perfect.", "stop", 7, 3)
    body = json.dumps({"choices": [{"text": " so", "finish_reason": "length"}], "usage": USAGE}).encode()
    assert read_reply(body, 0) == Reply(" so", "length", 7, 3)


def test_a_refusal_and_an_empty_message_are_told_apart():
    assert read_reply(chat(content=None, refusal="No."), 0) == Reply("No.", "refusal", 7, 3)
    assert read_reply(chat(content=None), 0) == Reply("", "stop", 7, 3)


def test_tokens_that_the_server_does_not_count_are_guessed_and_marked():
    body = json.dumps({"choices": [{"text": "12345678", "finish_reason": None}]}).encode()
    assert read_reply(body, request_size=41) == Reply("12345678", "stop", 11, 2, estimated=True)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>busy</html>", b'{"choices": [{"mess', b"null", b"[]", b'{"choices": []}', b'{"error": "busy"}',
        b'{"choices": [{"message": {"content": 3}}]}', b'{"choices": [{"message": "Perfect."}]}', b"\xff\xfe",
        b'{"choices": [{"text": "a"}], "usage": {"prompt_tokens": "many", "completion_tokens": 1}}',
        b'{"choices": [{"text": "a"}], "usage": {"prompt_tokens": 1}}',
    ],
)  # fmt: skip
def test_a_garbled_body_is_tried_again_and_counted_as_possibly_paid(body: bytes):
    with pytest.raises(Transient) as caught:
        read_reply(body, 0)
    assert caught.value.kind == "garbled reply" and caught.value.paid


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
def test_passing_failures(status: int):
    error = fail(status, "later")
    assert isinstance(error, Transient) and error.kind == f"HTTP {status}" and not error.paid
    assert str(error) == f"HTTP {status}: later"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 301])
def test_final_failures_say_the_servers_words(status: int):
    error = fail(status, "unknown parameter 'seed'")
    assert isinstance(error, EndpointError) and f"HTTP {status}: unknown parameter 'seed'" in str(error)


def test_final_failures_name_the_remedy():
    assert "environment variable MY_KEY" in str(fail(401))
    assert "'m'" in str(fail(404)) and "/v1" in str(fail(404))
    assert "http://there" in str(fail(308, location="http://there"))


def test_an_account_without_credit_is_not_asked_again():
    error = fail(429, "You exceeded your current quota", "insufficient_quota")
    assert isinstance(error, EndpointError) and "credit" in str(error)


@pytest.mark.parametrize(
    "message, code",
    [
        ("This model's maximum context length is 8192 tokens, you asked for 9000", None),
        ("too much", "context_length_exceeded"),
        ("The decoder prompt (length 5000) is longer than the maximum model length of 4096", None),
        ("the request exceeds the available context size", None),
        ("The response was filtered due to our content management policy", "content_filter"),
    ],
)
def test_what_is_wrong_with_one_request_only(message: str, code: str | None):
    assert isinstance(fail(400, message, code), SetAside)


@pytest.mark.parametrize("body", [b"plain words", b'{"error": "plain words"}', b'{"message": "plain words"}'])
def test_words_are_found_in_any_shape(body: bytes):
    assert "HTTP 405: plain words" in str(failure(405, {}, body, "m", "K"))


def test_retry_after_as_seconds_and_as_a_date():
    assert fail(429, **{"retry-after": "2.5"}).retry_after == 2.5
    soon = fail(503, **{"retry-after": formatdate(time.time() + 30, usegmt=True)}).retry_after
    assert 27 < soon <= 30
    past = formatdate(time.time() - 30, usegmt=True)
    assert [fail(429, **{"retry-after": text}).retry_after for text in ("-3", "soon", past)] == [0.0, 0.0, 0.0]
    assert fail(429).retry_after == 0.0


def test_the_key_of_a_request_depends_on_all_of_it_and_not_on_the_order_of_its_fields():
    key = request_key("chat/completions", encode({"model": "m", "temperature": 0.0}))
    assert key == request_key("chat/completions", encode({"temperature": 0.0, "model": "m"}))
    others = [{"model": "n", "temperature": 0.0}, {"model": "m", "temperature": 0.5}, {"model": "m"}]
    assert key not in [request_key("chat/completions", encode(other)) for other in others]
    assert key != request_key("completions", encode({"model": "m", "temperature": 0.0}))


def test_text_that_can_not_be_sent_is_set_aside():
    with pytest.raises(SetAside, match="lone surrogate U\\+D800"):
        encode({"prompt": "a\ud800"})
