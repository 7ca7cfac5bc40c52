"""Replies that were paid for and what they cost, in one SQLite file that survives a kill at any moment."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
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

    A write is committed the moment it is asked for: from there on no kill loses it. It returns once it is on the disk
    too; the syncs are made in a thread, and all writes that came during one share the next.

    Raises:
        EndpointError: the file can't be opened or written, or is no such store; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._committed, self._synced = 0, 0
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="store")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # isolation_level=None: transactions begin and end where the code says so.
            self._database = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            if self._database.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
                raise sqlite3.OperationalError("its file system has no shared memory for a write-ahead log")
            self._database.execute("PRAGMA synchronous=NORMAL")  # a commit does not wait for the disk, `_sync` does
            self._database.executescript(_TABLES)
            self._log = os.open(f"{path}-wal", os.O_RDWR)
        except (sqlite3.Error, OSError) as error:
            raise EndpointError(
                f"the store of replies {path} can't be used: {error}. Name another file, on a local disk"
            ) from error

    def reply(self, key: str) -> Reply | None:
        """The reply to a request, if it was paid for before."""
        row = self._database.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return Reply(**json.loads(row[0])) if row else None

    def spent(self, account: str | None = None) -> float:
        """US dollars of one account or of all, counting at their highest those requests whose end is not known."""
        query = "SELECT TOTAL(dollars) FROM expenses WHERE ?1 IS NULL OR account = ?1"
        return self._database.execute(query, (account,)).fetchone()[0]

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
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self._database.execute(statement, values)
            self._database.execute("COMMIT")
            self._committed += 1
            await asyncio.get_running_loop().run_in_executor(self._syncer, self._sync, self._committed)
        except (sqlite3.Error, OSError) as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise EndpointError(f"the store of replies {self.path} can't be written: {error}") from error

    def _sync(self, commit: int) -> None:
        """Have the disk hold the first `commit` commits; what a sync since then has taken along is there already."""
        if self._synced < commit:
            reached = self._committed
            os.fsync(self._log)
            self._synced = reached

    def close(self) -> None:
        """Wait for syncs under way and close the file."""
        self._syncer.shutdown()
        os.close(self._log)
        self._database.close()


def spent_in(path: Path) -> float:
    """US dollars of all accounts of a store."""
    store = Store(path)
    try:
        return store.spent()
    finally:
        store.close()


def _cost(expense: str, dollars: float) -> Statement:
    return "UPDATE expenses SET dollars = ? WHERE id = ?", (dollars, expense)
