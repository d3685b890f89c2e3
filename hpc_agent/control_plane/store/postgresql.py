"""What only PostgreSQL has: a schema of our own, advisory locks, notices between gateways.

Locks and notices belong to a session: a pooler in transaction mode (pgbouncer) breaks both, so the
URL must lead to the server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from hpc_agent.errors import ConfigError

SCHEMA = "hpc_agent_gateway"
"""Not a name that a database user is likely to have: Dagster would make its tables in here then,
since PostgreSQL looks for tables in the schema of the user's name first."""

CHANNEL = "hpc_agent_control_plane"
CONNECT_TIMEOUT_SECONDS = 10
RETRY_SECONDS = 2.0

DRIVER = "postgresql+psycopg2"
"""What plain postgresql:// means differs between releases of SQLAlchemy."""

_SESSION = {
    "application_name": "hpc-agent control-plane",
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 30,
}

logger = logging.getLogger(__name__)


def make_engine(url: sa.URL, *, size: int, overflow: int) -> sa.Engine:
    """Make an engine whose sessions live in our schema. Raises ConfigError without a driver."""
    try:
        engine = sa.create_engine(
            url.set(drivername=DRIVER),
            pool_size=size,
            max_overflow=overflow,
            pool_pre_ping=True,
            connect_args=_SESSION,
        )
    except ModuleNotFoundError as error:
        extra = "pip install 'dagster-hpc-agent[control-plane,postgres]'"
        raise ConfigError(f"PostgreSQL needs {error.name}: {extra}") from error
    sa.event.listen(engine, "connect", _use_schema)
    return engine


def enter_schema(connection: sa.Connection) -> None:
    """Make the schema where it is missing, with other gateways kept out until the commit."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(SCHEMA))))
    # Not IF NOT EXISTS: that asks for the privilege to make one even where there is one already.
    if connection.scalar(sa.select(sa.func.to_regnamespace(SCHEMA))) is None:
        connection.execute(sa.schema.CreateSchema(SCHEMA))


@contextmanager
def held_lock(connection: sa.Connection, name: str) -> Iterator[None]:
    """Hold an advisory lock for as long as the block runs."""
    key = sa.func.hashtextextended(name, 0)
    with connection.begin():
        connection.execute(sa.select(sa.func.pg_advisory_lock(key)))
    try:
        yield
    except BaseException:
        connection.invalidate()  # the end of the session is the end of its locks
        raise
    with connection.begin():
        connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))


def notify(connection: sa.Connection, topic: str) -> None:
    """Tell all gateways once this transaction is committed; SQLite has nobody to tell."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, topic)))


async def listen(url: str, heard: Callable[[str], None]) -> None:
    """Call ``heard`` with each topic that a gateway notifies, until cancelled.

    Notices are for speed only: what matters is in the tables, and who waits also looks there.
    """
    while True:
        try:
            connection = await asyncio.to_thread(_listening_connection, url)
        except sa.exc.DBAPIError as error:
            logger.warning("cannot listen to PostgreSQL, trying again: %s", error.orig)
        else:
            with contextlib.closing(connection):
                await _relay(connection, heard)
        await asyncio.sleep(RETRY_SECONDS)


async def _relay(connection: Any, heard: Callable[[str], None]) -> None:
    """Pass notices on until the connection breaks."""
    loop = asyncio.get_running_loop()
    broken = asyncio.Event()

    def readable() -> None:
        try:
            connection.poll()
        except connection.Error as error:
            logger.warning("lost the connection to PostgreSQL: %s", error)
            loop.remove_reader(descriptor)
            broken.set()
            return
        while connection.notifies:
            heard(connection.notifies.pop(0).payload)

    descriptor: int = connection.fileno()
    loop.add_reader(descriptor, readable)
    try:
        await broken.wait()
    finally:
        loop.remove_reader(descriptor)


def _listening_connection(url: str) -> Any:
    """Open a psycopg2 connection of its own, outside every pool."""
    address = sa.make_url(url).set(drivername=DRIVER)
    engine = sa.create_engine(address, poolclass=sa.pool.NullPool, connect_args=_SESSION)
    pooled = engine.raw_connection()
    connection: Any = pooled.driver_connection
    pooled.detach()
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
    except connection.Error as error:
        connection.close()
        raise sa.exc.DBAPIError(f"LISTEN {CHANNEL}", None, error) from error
    return connection


def _use_schema(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO {SCHEMA}")
    connection.commit()
