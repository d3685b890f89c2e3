"""The SQL of the queues goes through indices over what waits, however much is set aside."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from hpc_agent.outgoing.queue import Counts
from hpc_agent.outgoing.table import MessageTable
from hpc_agent.relay import spool
from hpc_agent.store import outbox
from hpc_agent.store.schema import MIGRATIONS

TABLES = [
    (outbox.MESSAGES, MIGRATIONS),
    (spool.WRITES, spool.migrations),
]


@pytest.mark.parametrize(("table", "migrations"), TABLES, ids=["outbox", "spool"])
@pytest.mark.parametrize(
    "look",
    [
        lambda table, db: table.heads(db, None, 64),
        lambda table, db: table.heads(db, "a", 64),
        lambda table, db: table.next(db, "a"),
    ],
    ids=["first streams", "next streams", "next of a stream"],
)
def test_a_look_scans_no_table(
    table: MessageTable,
    migrations: Migrations,
    look: Callable[[MessageTable, sqlite3.Connection], None],
) -> None:
    """SQLite says so itself."""
    connection = sqlite3.connect(":memory:")
    migrations.apply(Database(connection))
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    look(table, connection)
    connection.set_trace_callback(None)
    assert statements
    for statement in statements:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        scans = [step for step in plan if step.startswith(f"SCAN {table.name}")]
        assert all("USING INDEX" in step for step in scans), plan
        assert not [step for step in plan if "TEMP B-TREE" in step], plan
    connection.close()


async def test_a_spool_of_an_older_agent_keeps_what_was_rejected(tmp_path: Path) -> None:
    """It is set aside in the one table, so that it can be sent again."""
    database = Database(tmp_path / spool.FILE_NAME)
    spool.migrations.apply(database, stop_before="m002_one_table")
    row = {
        "stream": "run", "idempotency_key": "k", "deployment": "prod", "method": "POST",
        "path": "/graphql", "headers": "[]", "body": b"{}", "size": 2, "spooled_at": 1.0,
    }  # fmt: skip
    database.table("rejected").insert(row | {"reason": "HTTP 400", "rejected_at": 2.0})
    database.table("writes").insert(row | {"idempotency_key": "l"})
    database.close()
    opened = spool.Spool(tmp_path / spool.FILE_NAME, max_bytes=1 << 20)
    await opened.open()
    assert await opened.count() == Counts(1, 1)
    assert opened.holds("run")
    await opened.close()
