"""Event writes on disk, until the control plane takes them: SQLite in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Database, Migrations

from hpc_agent.errors import StoreError
from hpc_agent.relay.event_writes import EventWrite

log = logging.getLogger(__name__)
T = TypeVar("T")

migrations = Migrations("relay-spool")


@migrations()
def m001_writes(db: Database) -> None:
    """Make the tables of pending and of rejected writes."""
    columns = {
        "id": int,
        "stream": str,
        "idempotency_key": str,
        "deployment": str,
        "method": str,
        "path": str,
        "headers": str,
        "body": bytes,
        "size": int,
        "spooled_at": float,
    }
    db.table("writes").create(
        columns | {"attempts": int},
        pk="id",
        not_null=set(columns) - {"id"} | {"attempts"},
        defaults={"attempts": 0},
    )
    db.table("writes").create_index(["idempotency_key"], unique=True)
    db.table("rejected").create(columns | {"reason": str, "rejected_at": float}, pk="id")


class SpoolFullError(StoreError):
    """The spool has reached its size: the writer must wait and try again."""

    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A spooled write without its body."""

    id: int
    stream: str
    size: int
    attempts: int


class Spool:
    """A durable queue of event writes, in order per stream. Methods raise StoreError."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._bytes = 0
        self._streams: Counter[str] = Counter()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="relay-spool")
        self._db: Database

    @property
    def pending(self) -> int:
        """How many writes wait."""
        return self._streams.total()

    def holds(self, stream: str) -> bool:
        """Whether writes of this stream wait: later ones must then wait behind them."""
        return self._streams[stream] > 0

    async def open(self) -> None:
        """Open the file and count what it holds."""
        for stream, count, size in await self._run(self._open):
            self._streams[stream] = count
            self._bytes += size

    async def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(StoreError):
            await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def put(self, write: EventWrite) -> None:
        """Put a write on disk; one whose idempotency key is there already is not put twice."""
        size = len(write.body)
        if self._bytes + size > self._max_bytes:
            raise SpoolFullError(
                f"the event spool {self._path} is full ({self._bytes >> 20} MiB wait for the "
                "control plane): events are refused until it takes them; see relay.spool_max_bytes"
            )
        # Counted before it is on disk: a write that comes in meanwhile must queue behind this one.
        self._count(write.stream, 1, size)
        added = False
        try:
            added = await self._run(lambda: self._insert(write))
        finally:
            if not added:
                self._count(write.stream, -1, -size)

    async def head(self, limit: int = 200) -> Sequence[Pending]:
        """Return the oldest writes, oldest first."""
        return await self._run(lambda: self._head(limit))

    async def load(self, pending: Pending) -> EventWrite:
        """Read one write."""
        return await self._run(lambda: self._load(pending.id))

    async def remove(self, pending: Pending) -> None:
        """Forget a write that was delivered."""
        await self._run(lambda: self._delete(pending.id))
        self._count(pending.stream, -1, -pending.size)

    async def count_attempt(self, pending: Pending) -> None:
        """Note that the control plane answered a write with an error of its own."""
        await self._run(lambda: self._attempted(pending.id))

    async def reject(self, pending: Pending, reason: str) -> None:
        """Move aside a write that the control plane will never take."""
        await self._run(lambda: self._reject(pending.id, reason))
        self._count(pending.stream, -1, -pending.size)

    async def rejected(self) -> int:
        """Return how many writes were moved aside."""
        return await self._run(lambda: int(self._db.table("rejected").count))

    def _count(self, stream: str, writes: int, size: int) -> None:
        self._bytes += size
        self._streams[stream] += writes
        if not self._streams[stream]:
            del self._streams[stream]

    async def _run(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            try:
                return work()
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"event spool {self._path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, translated)

    # Below: in the spool's thread only.

    def _open(self) -> list[tuple[str, int, int]]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        self._db = Database(sqlite3.connect(self._path, isolation_level=None))
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = full")
        migrations.apply(self._db)
        rows = self._db.execute("select stream, count(*), sum(size) from writes group by stream")
        return [(str(stream), int(count), int(size)) for stream, count, size in rows.fetchall()]

    def _close(self) -> None:
        self._db.close()

    def _insert(self, write: EventWrite) -> bool:
        row: dict[str, Any] = {
            "stream": write.stream,
            "idempotency_key": write.idempotency_key,
            "deployment": write.deployment,
            "method": write.method,
            "path": write.path,
            "headers": json.dumps(write.headers),
            "body": write.body,
            "size": len(write.body),
            "spooled_at": time.time(),
        }
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        cursor = self._db.execute(
            f"insert or ignore into writes ({names}) values ({marks})",  # noqa: S608
            row,
        )
        return bool(cursor.rowcount)

    def _head(self, limit: int) -> list[Pending]:
        rows = self._db.execute(
            "select id, stream, size, attempts from writes order by id limit ?", [limit]
        ).fetchall()
        return [Pending(id=r[0], stream=r[1], size=r[2], attempts=r[3]) for r in rows]

    def _load(self, identifier: int) -> EventWrite:
        row = self._db.table("writes").get(identifier)
        return EventWrite(
            stream=row["stream"],
            idempotency_key=row["idempotency_key"],
            deployment=row["deployment"],
            method=row["method"],
            path=row["path"],
            headers=tuple((name, value) for name, value in json.loads(row["headers"])),
            body=bytes(row["body"]),
        )

    def _delete(self, identifier: int) -> None:
        self._db.execute("delete from writes where id = ?", [identifier])

    def _attempted(self, identifier: int) -> None:
        self._db.execute("update writes set attempts = attempts + 1 where id = ?", [identifier])

    def _reject(self, identifier: int, reason: str) -> None:
        with self._db.atomic():
            row = self._db.table("writes").get(identifier)
            del row["attempts"], row["id"]
            self._db.table("rejected").insert(row | {"reason": reason, "rejected_at": time.time()})
            self._db.execute("delete from writes where id = ?", [identifier])
