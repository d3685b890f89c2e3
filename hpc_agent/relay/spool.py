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
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Database, Migrations

from hpc_agent.errors import StoreError, UnreadableMessageError
from hpc_agent.outgoing.queue import Backlog, Counts, Waiting
from hpc_agent.outgoing.table import MessageTable
from hpc_agent.private_directories import private_directory
from hpc_agent.private_files import prepare_database
from hpc_agent.relay.event_writes import EventWrite

log = logging.getLogger(__name__)
T = TypeVar("T")

FILE_NAME = "relay-spool.sqlite"
WRITES = MessageTable(
    name="writes", stream="stream", size="size", since="spooled_at", kind="'event write'"
)
# What is set aside takes this part of the spool at most, beside what waits.
_SET_ASIDE_SHARE = 4

_Counted = list[tuple[str, int, int]]

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


@migrations()
def m002_one_table(db: Database) -> None:
    """Keep what is set aside in the table of what waits, so that it can be sent again."""
    for statement in (
        "ALTER TABLE writes ADD COLUMN refused TEXT",
        "ALTER TABLE writes ADD COLUMN refused_at REAL",
        "ALTER TABLE writes ADD COLUMN doubted REAL NOT NULL DEFAULT 0",
        "ALTER TABLE writes ADD COLUMN trouble TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX writes_streams ON writes (stream, id) WHERE refused IS NULL",
        "CREATE INDEX writes_refused ON writes (refused_at) WHERE refused IS NOT NULL",
        """INSERT OR IGNORE INTO writes (stream, idempotency_key, deployment, method, path,
               headers, body, size, spooled_at, refused, refused_at)
           SELECT stream, idempotency_key, deployment, method, path,
               headers, body, size, spooled_at, reason, rejected_at FROM rejected ORDER BY id""",
        "DROP TABLE rejected",
    ):
        db.execute(statement)


class SpoolFullError(StoreError):
    """The spool has reached its size: the writer must wait and try again."""

    retryable = True


class Spool:
    """A durable queue of event writes, in order per stream. Methods raise StoreError.

    What waits is counted here, so that it can be asked without a wait. Somebody else may change the
    file (`hpc-agent outgoing`): ``head`` finds out and counts anew.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._bytes = 0
        self._streams: Counter[str] = Counter()
        # On their way to disk: a write that comes in meanwhile must queue behind them.
        self._coming: Counter[str] = Counter()
        self._coming_bytes = 0
        self._version = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="relay-spool")
        self._db: sqlite3.Connection

    @property
    def pending(self) -> int:
        """How many writes wait."""
        return self._streams.total() + self._coming.total()

    def holds(self, stream: str) -> bool:
        """Whether writes of this stream wait: later ones must then wait behind them."""
        return self._streams[stream] > 0 or self._coming[stream] > 0

    async def open(self) -> None:
        """Open the file and count what it holds."""
        self._set_counts(await self._run(self._open))

    async def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(StoreError):
            await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def put(self, write: EventWrite) -> None:
        """Put a write on disk; one whose idempotency key is there already is not put twice."""
        size = len(write.body)
        if self._bytes + self._coming_bytes + size > self._max_bytes:
            raise SpoolFullError(
                f"the event spool {self._path} is full ({self._bytes >> 20} MiB wait for the "
                "control plane): events are refused until it takes them; see relay.spool_max_bytes"
            )
        self._coming[write.stream] += 1
        self._coming_bytes += size
        try:
            if await self._run(lambda: self._insert(write)):
                self._count(write.stream, 1, size)
        finally:
            self._coming[write.stream] -= 1
            self._coming_bytes -= size
            if not self._coming[write.stream]:
                del self._coming[write.stream]

    async def head(self, after: str | None, limit: int) -> Sequence[Waiting]:
        """Return the oldest write of each of the next streams."""
        counted, heads = await self._run(
            lambda: (self._recount(), WRITES.heads(self._db, after, limit))
        )
        if counted is not None:
            self._set_counts(counted)
        return heads

    async def load(self, waiting: Waiting) -> EventWrite | None:
        """Read a write, None when it is gone. Raises UnreadableMessageError."""
        return await self._run(lambda: _load(self._db, waiting))

    async def sent(self, waiting: Waiting) -> Waiting | None:
        """Forget a write that the control plane has; return the next one of its stream."""
        return await self._settle(waiting, lambda: WRITES.forget(self._db, waiting))

    async def set_aside(self, waiting: Waiting, reason: str) -> Waiting | None:
        """Keep a write out of the way; return the next one of its stream."""

        def keep() -> int:
            changed = WRITES.set_aside(self._db, waiting, reason)
            WRITES.prune(self._db, most_bytes=self._max_bytes // _SET_ASIDE_SHARE)
            return changed

        return await self._settle(waiting, keep)

    async def doubt(self, waiting: Waiting, seconds: float, reason: str) -> None:
        """Note for how long the control plane has answered a write with errors of its own."""
        await self._run(lambda: WRITES.doubt(self._db, waiting, seconds, reason))

    async def count(self) -> Counts:
        """Count the writes."""
        return await self._run(lambda: WRITES.count(self._db))

    async def backlog(self) -> Backlog:
        """Count the writes, and say since when the oldest of them waits."""
        return await self._run(lambda: WRITES.backlog(self._db))

    async def _settle(self, waiting: Waiting, work: Callable[[], int]) -> Waiting | None:
        def settled() -> tuple[int, Waiting | None]:
            changed = self._in_transaction(work)
            return changed, WRITES.next(self._db, waiting.stream)

        changed, following = await self._run(settled)
        if changed:
            self._count(waiting.stream, -1, -waiting.size)
        return following

    def _count(self, stream: str, writes: int, size: int) -> None:
        self._bytes = max(self._bytes + size, 0)
        self._streams[stream] += writes
        if self._streams[stream] <= 0:
            del self._streams[stream]

    def _set_counts(self, counted: _Counted) -> None:
        self._streams = Counter({stream: count for stream, count, _ in counted})
        self._bytes = sum(size for _, _, size in counted)

    async def _run(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            try:
                return work()
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"event spool {self._path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, translated)

    # Below: in the spool's thread only.

    def _open(self) -> _Counted:
        private_directory(self._path.parent)
        prepare_database(self._path)
        database = Database(sqlite3.connect(self._path, isolation_level=None))
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        migrations.apply(database)
        self._db = database.conn
        self._recount()
        return self._counted()

    def _close(self) -> None:
        self._db.close()

    def _recount(self) -> _Counted | None:
        """Count anew what waits, None when nobody else has changed the file."""
        (version,) = self._db.execute("pragma data_version").fetchone()
        if version == self._version:
            return None
        counted = self._counted()
        self._version = version
        return counted

    def _counted(self) -> _Counted:
        return self._db.execute(
            "select stream, count(*), sum(size) from writes where refused is null group by stream"
        ).fetchall()

    def _in_transaction(self, work: Callable[[], T]) -> T:
        self._db.execute("begin immediate")
        try:
            result = work()
            self._db.execute("commit")
        except BaseException:
            # A full disk may have rolled it back already.
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise
        return result

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


def _load(db: sqlite3.Connection, waiting: Waiting) -> EventWrite | None:
    # As bytes: SQLite would fail on text that is damaged, without saying that it is this row.
    names = ("stream", "idempotency_key", "deployment", "method", "path", "headers", "body")
    columns = ", ".join(f"cast({name} as blob)" for name in names)
    row = db.execute(
        f"select {columns} from writes "  # noqa: S608 - names from above
        "where id = ? and idempotency_key = ? and refused is null",
        [waiting.id, waiting.key],
    ).fetchone()
    if row is None:
        return None
    try:
        stream, key, deployment, method, path, headers = (value.decode() for value in row[:-1])
        return EventWrite(
            stream=stream,
            idempotency_key=key,
            deployment=deployment,
            method=method,
            path=path,
            headers=tuple((str(name), str(value)) for name, value in json.loads(headers)),
            body=bytes(row[-1]),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UnreadableMessageError(f"the event write cannot be read: {error}") from error
