"""The gateway's database: one engine, its transactions, its locks. SQLite or PostgreSQL.

The rest of ``store/`` speaks SQL that both take. What differs ends here, in ``postgresql.py`` and
in ``schema.py``: a write transaction of SQLite excludes all others from its start, one of
PostgreSQL holds the rows it has touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hpc_agent.control_plane.store import postgresql
from hpc_agent.control_plane.store.locks import NamedLocks
from hpc_agent.control_plane.store.migrations import migrate
from hpc_agent.errors import ConfigError, StoreError
from hpc_agent.metrics.gateway import DATABASE_TRANSACTIONS
from hpc_agent.metrics.meter import SILENT, Meter, timed
from hpc_agent.private_files import prepare_database

BUSY_TIMEOUT_SECONDS = 30
POOL_SIZE = 16
POOL_OVERFLOW = 32
"""At least as many connections in all as threads use the database at once, see process.py."""


class Database:
    """The gateway's database; safe to use from many threads and processes at once."""

    def __init__(self, url: str, meter: Meter = SILENT) -> None:
        self.url = url
        self._meter = meter
        try:
            self._engine = _engine(url)
        except OSError as error:
            raise StoreError(f"cannot open the gateway database: {error}") from error
        self._locks = NamedLocks()
        try:
            with self.write() as connection:
                if self.is_shared:
                    postgresql.enter_schema(connection)
                migrate(connection)
        except sa.exc.DatabaseError as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            reason = " ".join(str(error.orig).split())
            raise StoreError(f"cannot open the gateway database {shown}: {reason}") from error

    @property
    def is_shared(self) -> bool:
        """Whether gateways on other machines may use this database too."""
        return self._engine.dialect.name == "postgresql"

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection for queries."""
        with (
            timed(self._meter, DATABASE_TRANSACTIONS, "read"),
            self._engine.connect() as connection,
        ):
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that commits at its end."""
        with (
            timed(self._meter, DATABASE_TRANSACTIONS, "write"),
            self._engine.connect() as connection,
            writing(connection),
        ):
            yield connection

    @contextmanager
    def hold(self, name: str) -> Iterator[sa.Connection]:
        """Hold a lock against all threads and gateways; yields a connection for ``writing``.

        A PostgreSQL that loses the holder's connection gives the lock to the next one.
        """
        with self._locks.hold(name), self._engine.connect() as connection:
            if not self.is_shared:  # only one gateway: the lock among threads is enough
                yield connection
                return
            with postgresql.held_lock(connection, name):
                yield connection

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def writing(connection: sa.Connection) -> Iterator[None]:
    """Open a transaction for writing on a connection that has none."""
    with connection.execution_options(writes=True).begin():
        yield


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "postgresql":
            return postgresql.make_engine(parsed, size=POOL_SIZE, overflow=POOL_OVERFLOW)
    except sa.exc.ArgumentError as error:
        raise ConfigError(
            "the database URL cannot be read: write postgresql://USER@HOST:PORT/DATABASE"
        ) from error
    if parsed.get_backend_name() != "sqlite":
        raise ConfigError(
            f"the gateway's tables cannot be in {parsed.get_backend_name()}: "
            "use PostgreSQL (postgresql://USER@HOST:PORT/DATABASE), or leave the URL out for SQLite"
        )
    if parsed.database:
        prepare_database(Path(parsed.database))
    engine = sa.create_engine(
        parsed, pool_size=POOL_SIZE, max_overflow=POOL_OVERFLOW,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
    )  # fmt: skip
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
