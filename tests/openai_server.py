"""A small server that speaks OpenAI's protocol on 127.0.0.1, for tests: scripted answers and faults, or a real model.

    python tests/openai_server.py --model HuggingFaceTB/SmolLM2-135M-Instruct --port 8000

In a test: `with Server(answer, fault=...) as server:` and `server.base_url`. It notes every request and its outcome; an
answer counts as "answered" only once it was written out in full to a client that was still there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass
class Answer:
    """What the server says to one request; `raw` replaces the body that text and counts would make."""

    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 10
    completion_tokens: int = 5
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    delay: float = 0.0  # seconds before it is sent; a client that leaves in that time gets none
    drop: bool = False  # half of it is sent, then the connection is cut


@dataclass
class Seen:
    """A request: its hash, content, when it came and went, what became of it ("answered", "gone", "dropped", ...)."""

    key: str
    path: str
    payload: dict[str, Any]
    headers: dict[str, str]
    at: float
    until: float = 0.0
    outcome: str = "under way"


Script = Callable[[str, dict[str, Any]], Answer]  # path, payload


class Server:
    """Serves in a thread of its own between `__enter__` and `__exit__`.

    Args:
        answer: what is said to a request that nothing befalls; called in a thread where `blocking`.
        fault: number of the request, counted from 0, to the answer that takes the place of the right one, or None.
        latency: seconds before each right answer.
        blocking: `answer` takes long, one call at a time.
    """

    def __init__(
        self,
        answer: Script,
        fault: Callable[[int], Answer | None] = lambda number: None,
        latency: float = 0.0,
        blocking: bool = False,
        port: int = 0,
    ) -> None:
        self.answer, self.fault, self.latency, self.blocking, self.port = answer, fault, latency, blocking, port
        self.seen: list[Seen] = []
        self.under_way, self.most_under_way = 0, 0
        self._one = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def outcomes(self, outcome: str) -> list[str]:
        """Keys of the requests that ended so, in order."""
        return [each.key for each in self.seen if each.outcome == outcome]

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(10), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(asyncio.current_task())
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
            writer.close()
            connections.discard(asyncio.current_task())

        server = await asyncio.start_server(connected, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        path = head[0].split()[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if head[0].startswith("GET"):
            await self._write(writer, Answer(raw=b'{"object": "list", "data": []}'), path, {})
            return True
        path = path.partition("/v1/")[2]
        key = hashlib.sha256(path.encode() + b"\0" + body).hexdigest()
        seen = Seen(key, path, json.loads(body), headers, time.monotonic())
        self.seen.append(seen)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            seen.outcome = await self._answer(reader, writer, seen, self.fault(len(self.seen) - 1))
        except ConnectionError:
            seen.outcome = "gone"
        finally:
            self.under_way -= 1
            seen.until = time.monotonic()
        return seen.outcome not in ("gone", "dropped")

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen, fault: Answer | None
    ) -> str:
        answer = fault or await self._right(seen)
        delay = answer.delay or (0.0 if fault else self.latency)
        if delay:
            leaving = asyncio.ensure_future(reader.read(1))  # nothing comes before the answer but an end
            await asyncio.wait([leaving], timeout=delay)
            if leaving.done():
                return "gone"
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        await self._write(writer, answer, seen.path, seen.payload)
        if answer.drop:
            return "dropped"
        if answer.status != 200:
            return f"HTTP {answer.status}"
        return "garbled" if answer.raw is not None else "answered"

    async def _right(self, seen: Seen) -> Answer:
        if not self.blocking:
            return self.answer(seen.path, seen.payload)
        async with self._one:
            return await asyncio.get_running_loop().run_in_executor(None, self.answer, seen.path, seen.payload)

    async def _write(self, writer: asyncio.StreamWriter, answer: Answer, path: str, payload: dict[str, Any]) -> None:
        body = answer.raw if answer.raw is not None else json.dumps(_content(answer, path, payload)).encode()
        lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Other')}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in {"content-type": "application/json", **answer.headers}.items()]
        data = "\r\n".join([*lines, "", ""]).encode() + body
        writer.write(data[: len(data) // 2] if answer.drop else data)
        await writer.drain()


def _content(answer: Answer, path: str, payload: dict[str, Any]) -> dict[str, Any]:
    if answer.status != 200:
        return {"error": {"message": answer.text, "type": "error", "code": None}}
    choice: dict[str, Any] = {"index": 0, "finish_reason": answer.finish_reason}
    if path == "chat/completions":
        choice["message"] = {"role": "assistant", "content": answer.text}
    else:
        choice["text"] = answer.text
    total = answer.prompt_tokens + answer.completion_tokens
    return {
        "id": "x", "object": path, "created": 0, "model": payload.get("model"), "choices": [choice],
        "usage": {
            "prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens, "total_tokens": total,
        },
    }  # fmt: skip


def model_script(model: Any, tokenizer: Any) -> Script:
    """Answers by a Hugging Face model: temperature, top_p, max_tokens and seed are heeded."""
    import torch

    longest = model.config.max_position_embeddings

    def answer(path: str, payload: dict[str, Any]) -> Answer:
        if path == "chat/completions":
            text = tokenizer.apply_chat_template(payload["messages"], tokenize=False, add_generation_prompt=True)
            prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        else:
            prompt = tokenizer(payload["prompt"], return_tensors="pt")
        length, limit = prompt["input_ids"].shape[1], payload.get("max_tokens", 16)
        if length + limit > longest:
            said = f"This model's maximum context length is {longest} tokens; {length} + {limit} were requested."
            return Answer(said, status=400)
        temperature = payload.get("temperature", 1.0)
        sampling = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": payload.get("top_p", 1.0), "top_k": 0}
        torch.manual_seed(payload.get("seed", 0))
        prompt.pop("token_type_ids", None)
        with torch.no_grad():
            ids = model.generate(**prompt, max_new_tokens=limit, pad_token_id=tokenizer.eos_token_id, **sampling)
        ids = ids[0, length:].tolist()
        ended = ids[-1] == tokenizer.eos_token_id
        return Answer(tokenizer.decode(ids, skip_special_tokens=True), "stop" if ended else "length", length, len(ids))

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a Hugging Face model on 127.0.0.1 by OpenAI's protocol.")
    parser.add_argument("--model", required=True, help="a folder or a Hub name")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cut_dist.model.resolve import resolve_model

    path = resolve_model(options.model)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    with Server(model_script(model, tokenizer), blocking=True, port=options.port) as server:
        print(server.base_url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
