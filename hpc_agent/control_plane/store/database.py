"""One SQLAlchemy engine and its two kinds of transaction; SQLite's particulars end here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from hpc_agent.control_plane.store.migrations import migrate
from hpc_agent.errors import StoreError

BUSY_TIMEOUT_SECONDS = 30


class Database:
    """The gateway's database; safe to use from many threads and processes at once."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        try:
            with self.write() as connection:
                migrate(connection)
        except sa.exc.DatabaseError as error:
            raise StoreError(f"cannot open the gateway database {url}: {error.orig}") from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection for queries."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that holds the write lock from its start and commits at its end."""
        with self._engine.connect() as connection:
            writer = connection.execution_options(writes=True)
            with writer.begin():
                yield writer

    def close(self) -> None:
        self._engine.dispose()


def _engine(url: str) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_size=16, pool_pre_ping=True)
    engine = sa.create_engine(
        url, pool_size=16, max_overflow=32, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}
    )
    sa.event.listen(engine, "connect", _configure_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; see _begin_sqlite
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A deferred transaction that reads and then writes fails with "database is locked" at once,
    # whatever the busy timeout (https://www.sqlite.org/isolation.html): take the lock first.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
