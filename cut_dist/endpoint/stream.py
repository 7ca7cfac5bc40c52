"""From an asynchronous client to a plain iterator: results as they come, and a clean stop at any moment."""

from __future__ import annotations

import asyncio
import queue
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from cut_dist.endpoint.client import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORKERS_PER_SLOT = 8  # so that the slots stay full while others wait to be tried again


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def stream(
    client: Client, items: Iterable[Item], work: Callable[[Client, Item], Awaitable[Result]]
) -> Iterator[Result]:
    """Results of `work` on each item, many at once, as they come. Closes the client at the end.

    The event loop has a thread of its own, so requests go on while the caller writes a result down. Whatever ends the
    iteration early (an error, Ctrl-C, SIGTERM, a caller that stops asking) sends nothing more, and waits a little for
    the replies under way, which the client keeps.

    Raises:
        EndpointError: the run can't go on.
    """
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(_work_through(client, items, work, results.put))

    def run() -> None:
        try:
            loop.run_until_complete(task)
            end = _End(None)
        except BaseException as error:  # also what is no error of the endpoint: the caller must see it
            end = _End(error)
        results.put(end)

    thread = threading.Thread(target=run, name="endpoint", daemon=True)
    with _sigterm_as_exit():
        thread.start()
        try:
            while not isinstance(result := results.get(), _End):
                yield result
            if result.error is not None:
                raise result.error
        finally:
            loop.call_soon_threadsafe(task.cancel)  # nothing where it has ended
            thread.join()
            loop.close()


async def _work_through(
    client: Client,
    items: Iterable[Item],
    work: Callable[[Client, Item], Awaitable[Result]],
    put: Callable[[Result], None],
) -> None:
    left = iter(items)

    async def worker() -> None:
        for item in left:
            put(await work(client, item))

    workers = [asyncio.ensure_future(worker()) for _ in range(client.cfg.concurrency * _WORKERS_PER_SLOT)]
    try:
        ended, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        failed = next((each.exception() for each in ended if each.exception()), None)
    finally:
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await client.close()
    if failed:
        raise failed


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """In the main thread, where nobody else cares: SIGTERM unwinds like Ctrl-C, so replies under way are kept."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
