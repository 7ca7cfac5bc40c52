"""A page on this machine to judge on, one question at a time; an answer counts when it is written down.

It listens on 127.0.0.1 only, and knows its own people by a token in the address: other users of the machine, and
pages of other sites in the same browser, don't have it.
"""

from __future__ import annotations

import hmac
import queue
import secrets
import threading
from collections import deque
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from cut_dist.config_check import ConfigError
from cut_dist.judges import human_page
from cut_dist.judges.base import WaitingForPeople
from cut_dist.judges.human_form import Answer, Form, Question
from cut_dist.wording import counted

_HERE = ("127.0.0.1", "localhost")
_LARGEST_POST = 2**20  # bytes
_LARGEST_READ = 2**25  # that are read of a larger one, to nothing
_PATIENCE_S = 60.0  # that a browser waits for its answer to be written down
_GOODBYE_S = 5.0  # for the last page to reach the browser


def ask_on_page(form: Form, questions: Sequence[Question], done: Set[str], port: int) -> Iterator[Answer]:
    """Serve the questions that are not done until all are answered; each answer is given as it comes.

    The browser is told that an answer was taken once the caller asks for the next one, having written this one down.

    Raises:
        ConfigError: the port is taken.
        WaitingForPeople: interrupted by Ctrl-C before all were answered.
    """
    open_questions = [question for question in questions if question.id not in done]
    if not open_questions:
        return
    desk = Desk(form, open_questions, len(questions))
    with _serving(desk, port) as address:
        number = counted(len(open_questions), "response")
        print(f"{number} to judge on {address} (Ctrl-C: go on another time)", flush=True)
        try:
            for _ in open_questions:
                given = desk.given.get()
                try:
                    yield given.answer
                    desk.settle(given)
                finally:
                    given.settled.set()
            given.delivered.wait(_GOODBYE_S)
        except KeyboardInterrupt:
            left = counted(desk.total - desk.done, "response")
            raise WaitingForPeople(f"{left} still to judge: start the same command again to go on") from None


@dataclass
class Given:
    """An answer on its way: `settled` when the caller has had it, `delivered` when the browser knows."""

    answer: Answer
    written: bool = False
    settled: threading.Event = field(default_factory=threading.Event)
    delivered: threading.Event = field(default_factory=threading.Event)


class Desk:
    """Which questions are open, out of `total` with those of earlier starts, shared by the threads of the server."""

    def __init__(self, form: Form, questions: Sequence[Question], total: int) -> None:
        self.form, self.total, self.done = form, total, total - len(questions)
        self.given: queue.SimpleQueue[Given] = queue.SimpleQueue()
        self._questions = {question.id: question for question in questions}
        self._open = deque(self._questions)
        self._lock = threading.Lock()

    def current(self) -> Question | None:
        """The question to show; None where all are answered."""
        with self._lock:
            return self._questions[self._open[0]] if self._open else None

    def find(self, id: str) -> Question | None:
        """The open question of that id."""
        with self._lock:
            return self._questions[id] if id in self._open else None

    def skip(self, id: str) -> None:
        """Put a question behind all others."""
        with self._lock:
            if id in self._open:
                self._open.remove(id)
                self._open.append(id)

    def take(self, answer: Answer) -> Given | None:
        """Hand an answer to the caller; None where the question is not open (any more)."""
        with self._lock:
            if answer.id not in self._open:
                return None
            self._open.remove(answer.id)
        given = Given(answer)
        self.given.put(given)
        return given

    def settle(self, given: Given) -> None:
        """The answer is written down."""
        with self._lock:
            self.done += 1
        given.written = True


@contextmanager
def _serving(desk: Desk, port: int) -> Iterator[str]:
    token = secrets.token_urlsafe(16)
    try:
        server = _Server(port, desk, token)
    except OSError as error:
        raise ConfigError(f"judge.port={port}: {error.strerror}; give another port.") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{token}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a browser's idle connection holds nothing up

    def __init__(self, port: int, desk: Desk, token: str) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.desk, self.token = desk, token


class _Handler(BaseHTTPRequestHandler):
    timeout = 30  # a connection that a browser opens and doesn't use

    def do_GET(self) -> None:
        if self._is_ours():
            self._show()

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LARGEST_POST:
            self.rfile.read(min(length, _LARGEST_READ))  # who is cut off while sending never reads the answer
            self.send_error(413)
            return
        fields = parse_qs(self.rfile.read(length).decode("utf-8", "replace"), keep_blank_values=True)
        id, verdict, words = (fields.get(name, [""])[0] for name in ("id", "verdict", "words"))
        if "skip" in fields:
            self.server.desk.skip(id)
            self._go_on()
        else:
            self._answer(Answer(id, verdict, words.replace("\r\n", "\n").strip()))

    def _answer(self, answer: Answer) -> None:
        desk = self.server.desk
        question, problem = desk.find(answer.id), desk.form.problem(answer.verdict, answer.words)
        if question is not None and problem:
            self._show(question, problem=problem, words=answer.words, status=422)
            return
        given = desk.take(answer)
        if given is None:  # sent twice
            self._go_on()
            return
        given.settled.wait(_PATIENCE_S)
        if not given.written:
            reason = "The program that writes answers down has stopped; see there. This answer is lost."
            self._send(human_page.failure_page, 500, reason=reason)
        elif desk.current() is None:
            self._show()
        else:
            self._go_on()
        given.delivered.set()

    def _is_ours(self) -> bool:
        """Whether the token is right, and the request is from the page itself; if not it is answered here."""
        known = hmac.compare_digest(self.path.encode("utf-8", "replace"), f"/{self.server.token}/".encode())
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        origin = self.headers.get("Origin")
        at_home = host in _HERE and (origin is None or urlsplit(origin).hostname in _HERE)
        if not (known and at_home):
            self.send_error(404)
        return known and at_home

    def _show(self, question: Question | None = None, *, status: int = 200, **said: str) -> None:
        desk = self.server.desk
        question = question or desk.current()
        if question is None:
            self._send(human_page.last_page, status, total=desk.total)
        else:
            facts = {"form": desk.form, "question": question, "done": desk.done, "total": desk.total}
            self._send(human_page.question_page, status, **facts, **said)

    def _send(self, page, status: int, **facts) -> None:
        nonce = secrets.token_urlsafe(16)
        body = page(nonce=nonce, **facts).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", human_page.policy(nonce))
        self._send_common()
        self.wfile.write(body)

    def _go_on(self) -> None:
        self.send_response(303)
        self.send_header("Location", f"/{self.server.token}/")
        self.send_header("Content-Length", "0")
        self._send_common()

    def _send_common(self) -> None:
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the address with its token belongs in no log."""
