"""The state database: SQLite on a local disk, behind one thread of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlite_utils import Database

from hpc_agent.errors import StoreError, UnsafePathError
from hpc_agent.metrics.agent import STORE_TRANSACTIONS
from hpc_agent.metrics.meter import SILENT, Meter, timed
from hpc_agent.private_directories import private_directory
from hpc_agent.private_files import prepare_database
from hpc_agent.store import news
from hpc_agent.store.filesystem import refuse_network_filesystem
from hpc_agent.store.news import Topic
from hpc_agent.store.schema import MIGRATIONS

Item = TypeVar("Item")
Result = TypeVar("Result")

FILE_NAME = "agent.db"


class Store:
    """One connection in one thread; every unit of work is one immediate transaction.

    ``run`` takes a function of the open database, so that several statements commit together. It
    returns only after the commit is on disk (``synchronous=FULL``): what it did is durable.
    ``on_news`` is then told what has changed, so that nobody need remember whom to wake.
    """

    def __init__(
        self,
        home: Path,
        *,
        on_news: Callable[[frozenset[Topic]], None] = lambda _: None,
        meter: Meter = SILENT,
    ) -> None:
        self._path = home / FILE_NAME
        self._on_news = on_news
        self._meter = meter
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._database: Database | None = None

    async def open(self) -> None:
        """Open the database and migrate it.

        Raises StoreError when it cannot be used, UnsafePathError when it is not ours alone.
        """
        await self._call(self._open)

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await self._call(self._close)
        self._thread.shutdown(wait=True)

    async def run(self, work: Callable[[Database], Result]) -> Result:
        """Run ``work`` in a transaction of its own and return what it returns."""
        result, changed = await self._call(lambda: self._in_timed_transaction(work))
        if changed:
            self._on_news(changed)
        return result

    async def in_parts(
        self,
        items: Sequence[Item],
        read: Callable[[Database, Sequence[Item]], Sequence[Result]],
        *,
        at_once: int = 200,
    ) -> AsyncIterator[Sequence[Result]]:
        """Read what belongs to many items, some of them in each transaction.

        Ten thousand at once would keep the store from all others, and stay in the process's memory.
        """
        for first in range(0, len(items), at_once):
            some = items[first : first + at_once]
            yield await self.run(lambda db, some=some: read(db, some))  # type: ignore[misc]

    async def _call(self, function: Callable[[], Result]) -> Result:
        try:
            # What is logged there is about the same as here.
            run = partial(copy_context().run, function)
            return await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def _open(self) -> None:
        home = self._path.parent
        try:
            private_directory(home)
            prepare_database(self._path)
        except UnsafePathError as error:
            raise UnsafePathError(f"home: {error}") from None
        refuse_network_filesystem(home)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("PRAGMA foreign_keys=ON")
        self._database = Database(connection)
        MIGRATIONS.apply(self._database)
        news.watch(self._database)

    def _close(self) -> None:
        if self._database is not None:
            self._database.conn.close()
            self._database = None

    def _in_timed_transaction(
        self, work: Callable[[Database], Result]
    ) -> tuple[Result, frozenset[Topic]]:
        with timed(self._meter, STORE_TRANSACTIONS):
            return self._in_transaction(work)

    def _in_transaction(
        self, work: Callable[[Database], Result]
    ) -> tuple[Result, frozenset[Topic]]:
        if self._database is None:
            raise StoreError(f"{self._path} is not open")
        connection = self._database.conn
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._database)
            changed = news.take(self._database)
            connection.execute("COMMIT")
        except BaseException:
            # A full disk may end the transaction by itself (sqlite.org/lang_transaction.html).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result, changed


def read_only(home: Path) -> Database:
    """Open the database for reading, beside a running agent. Raises StoreError when absent."""
    path = home / FILE_NAME
    if not path.exists():
        raise StoreError(f"{path} does not exist: no agent has run with this home directory yet")
    return Database(sqlite3.connect(f"file:{path}?mode=ro", uri=True))
