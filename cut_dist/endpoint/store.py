"""Replies that were paid for and what they cost, in one SQLite file that survives a kill at any moment."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cut_dist.endpoint.errors import EndpointError
from cut_dist.endpoint.protocol import Reply

Statement = tuple[str, tuple[Any, ...]]  # SQL and its values

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, model TEXT, reply TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE IF NOT EXISTS expenses (id TEXT PRIMARY KEY, account TEXT, dollars REAL);
CREATE INDEX IF NOT EXISTS by_account ON expenses (account);
"""


class Store:
    """Replies by the hash of their request, and expenses by account.

    Reads take microseconds and are made where they are asked for. Writes go to a thread; those that come while one is
    being synced to disk share the next sync, so many at once cost no more than one.

    Raises:
        EndpointError: the file can't be opened or is no such store; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: deque[tuple[Statement, ...]] = deque()
        self._broken: sqlite3.Error | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="replies")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._connect()
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.executescript(_TABLES)
            self._reader = self._connect()
        except (sqlite3.Error, OSError) as error:
            raise EndpointError(f"the store of replies {path} can't be used: {error}. Name another file") from error

    def _connect(self) -> sqlite3.Connection:
        # isolation_level=None: transactions begin and end where the code says so. FULL: a commit is on the disk.
        database = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA synchronous=FULL")
        return database

    def reply(self, key: str) -> Reply | None:
        """The reply to a request, if it was paid for before."""
        row = self._reader.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return Reply(**json.loads(row[0])) if row else None

    def spent(self, account: str) -> float:
        """US dollars of an account, counting at their highest those requests whose end is not known."""
        query = "SELECT TOTAL(dollars) FROM expenses WHERE account = ?"
        return self._reader.execute(query, (account,)).fetchone()[0]

    async def save(self, key: str, model: str, reply: Reply, expense: tuple[str, float] | None) -> None:
        """Keep a reply, and with it what it cost: (id, dollars) of its expense."""
        insert = "INSERT OR IGNORE INTO replies (key, model, reply) VALUES (?, ?, ?)"
        await self._write((insert, (key, model, json.dumps(asdict(reply)))), *([_cost(*expense)] if expense else []))

    async def open_expense(self, expense: str, account: str, dollars: float) -> None:
        """Note what a request may cost."""
        await self._write(("INSERT INTO expenses VALUES (?, ?, ?)", (expense, account, dollars)))

    async def settle_expense(self, expense: str, dollars: float) -> None:
        """Set an expense to what it was."""
        await self._write(_cost(expense, dollars))

    async def _write(self, *statements: Statement) -> None:
        self._waiting.append(statements)
        await asyncio.get_running_loop().run_in_executor(self._writer, self._commit)

    def _commit(self) -> None:
        """Write all that waits as one transaction. What an earlier call took along is on the disk already."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            if batch and not self._broken:
                self._database.execute("BEGIN IMMEDIATE")
                for statement, values in itertools.chain.from_iterable(batch):
                    self._database.execute(statement, values)
                self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._broken = error
        if self._broken:  # some of these may have been taken along by the call that failed, so none is told "kept"
            raise EndpointError(f"the store of replies {self.path} can't be written: {self._broken}") from self._broken

    def close(self) -> None:
        """Wait for writes under way and close the file."""
        self._writer.shutdown()
        self._reader.close()
        self._database.close()


def _cost(expense: str, dollars: float) -> Statement:
    return "UPDATE expenses SET dollars = ? WHERE id = ?", (dollars, expense)
