"""OpenAI's protocol over HTTP: what a reply holds, and which failures are final, passing, or of one request only."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from cut_dist.endpoint.errors import EndpointError, SetAside, Transient

Payload = Mapping[str, Any]

_WORDS_CHARS = 300
_BYTES_PER_TOKEN = 4  # about, of English text; only where the server counts nothing, and ahead of its count
_PASSING = {408, 409, 425, 429}  # and all from 500 on
_OF_ONE_REQUEST = {400, 413, 422}
_TOO_LONG = re.compile(
    r"context[_ ](length|size|window)|model length|prompt is too long|too many tokens|above_max_length", re.IGNORECASE
)
_FILTERED = re.compile(r"content[_ ](filter|policy|management)|responsible.?ai", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    """What the server answered.

    Attributes:
        text: of the first choice.
        finish_reason: as the server says it, "stop", "length", "content_filter", ...; "refusal" where the message is
            marked as one.
        prompt_tokens: of the prompt, as the server counts.
        completion_tokens: of the answer, reasoning included.
        estimated: the server counted no tokens, the numbers are a guess from the length.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False


def encode(payload: Payload) -> bytes:
    """The body of a request, the same bytes for the same content.

    Raises:
        SetAside: the text has a lone surrogate, which is no text that could be sent.
    """
    text = json.dumps(payload, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise SetAside(f"not sent: lone surrogate U+{ord(text[error.start]):04X} in the text") from None


def request_key(path: str, body: bytes) -> str:
    """Name of a request in the store: a hash of all that its reply depends on (model, prompt, parameters)."""
    return hashlib.sha256(path.encode() + b"\0" + body).hexdigest()


def guess_tokens(size: int) -> int:
    """About how many tokens a text of `size` bytes has."""
    return -(-size // _BYTES_PER_TOKEN)


def read_reply(body: bytes, request_size: int) -> Reply:
    """The reply in the body of a 200.

    Raises:
        Transient: the body is no reply of either API; it may have been charged for all the same.
    """
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        text, finish_reason = _text(choice), choice.get("finish_reason") or "stop"
        if (choice.get("message") or {}).get("refusal"):
            text, finish_reason = choice["message"]["refusal"], "refusal"
        if not isinstance(text, str) or not isinstance(finish_reason, str):
            raise TypeError("text or finish_reason is no text")
        usage = content.get("usage")
        counts = [usage[key] for key in ("prompt_tokens", "completion_tokens")] if usage else []
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise TypeError("usage holds no counts")
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Transient("garbled reply", f"garbled reply ({type(error).__name__}): {_line(body)}", paid=True) from None
    if not counts:
        counts = [guess_tokens(request_size), guess_tokens(len(text.encode("utf-8", "replace")))]
    return Reply(text, finish_reason, *counts, estimated=not usage)


def _text(choice: Mapping[str, Any]) -> str:
    if "message" in choice:
        content = choice["message"].get("content")
        return "" if content is None else content
    return choice["text"]


def failure(status: int, headers: Mapping[str, str], body: bytes, model: str, key_variable: str) -> Exception:
    """What a status other than 200 means for the attempt, the request or the run.

    Args:
        status: HTTP status.
        headers: of the answer, under names in lower case.
        body: of the answer; the server's words are taken from it.
        model: that was asked for, for the remedy.
        key_variable: name of the environment variable of the key, for the remedy.
    """
    words, code = _server_words(body)
    said = f"HTTP {status}: {words}"
    if status == 429 and "insufficient_quota" in code:
        return EndpointError(f"the account has no credit left ({said}). Add some and start again: all replies are kept")
    if status in _PASSING or status >= 500:
        return Transient(f"HTTP {status}", said, retry_after=_retry_after(headers.get("retry-after")))
    if status in _OF_ONE_REQUEST and _TOO_LONG.search(f"{code} {words}"):
        return SetAside(f"longer than the model takes ({said})")
    if status in _OF_ONE_REQUEST and _FILTERED.search(f"{code} {words}"):
        return SetAside(f"refused by the server's content filter ({said})")
    if status in (401, 403):
        remedy = f"set the environment variable {key_variable} to a key that may use the model {model!r}"
    elif status == 404:
        remedy = (
            f"does base_url end in the version, /v1, and does the server know a model {model!r} (see base_url/models)?"
        )
    elif 300 <= status < 400:
        remedy = f"the server sends elsewhere: set base_url to that place ({headers.get('location', 'not named')})"
    else:
        remedy = "the server takes no such request"
    return EndpointError(f"{said}. {remedy[0].upper()}{remedy[1:]}")


def _server_words(body: bytes) -> tuple[str, str]:
    """What the server says in one line, and its codes for it."""
    try:
        error = json.loads(body)
        error = error.get("error", error)
        if isinstance(error, str):
            return _line(error.encode()), ""
        words = str(error.get("message") or error.get("detail") or _line(body))
        return _line(words.encode()), f"{error.get('code')} {error.get('type')}"
    except (ValueError, AttributeError):
        return _line(body), ""


def _line(body: bytes) -> str:
    text = " ".join(body[: 4 * _WORDS_CHARS].decode("utf-8", "replace").split())
    return text if len(text) <= _WORDS_CHARS else f"{text[:_WORDS_CHARS]}…"


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header names, as a number or a date; 0 where there is none that can be read."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
