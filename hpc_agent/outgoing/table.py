"""The SQL of a queue: one table of messages, those that wait and those that are set aside.

Whatever else a table holds, these columns have the same meaning in all of them: ``id`` (the order),
``idempotency_key``, ``refused`` (the reason why it is set aside, NULL while it waits),
``refused_at``, ``doubted`` and ``trouble`` (how long errors have been answered, and the last one).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hpc_agent.outgoing.queue import SET_ASIDE_KEPT, Backlog, Counts, Waiting

log = logging.getLogger(__name__)


class Connection(Protocol):
    """What sqlite3 and sqlite-utils have in common."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Any:
        """Execute a statement."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as a person sees it; ``reason`` is why it is set aside, or not taken so far."""

    id: int
    kind: str
    deployment: str
    stream: str
    since: float
    size: int | None
    is_set_aside: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTable:
    """A table of messages: names of its own columns, or expressions."""

    name: str
    stream: str
    size: str
    since: str
    kind: str

    def heads(self, db: Connection, after: str | None, limit: int) -> list[Waiting]:
        """Return the oldest message of each of the streams whose names follow ``after``.

        One look into the index for each stream, however many messages wait.
        """
        first = f"{self.stream} > ?1" if after is not None else "?1 IS NULL"
        names = f"SELECT {self.stream} FROM {self.name} WHERE refused IS NULL AND"
        rows = db.execute(
            f"WITH RECURSIVE streams (name) AS ("
            f"  SELECT ({names} {first} ORDER BY {self.stream} LIMIT 1)"
            f"  UNION ALL SELECT ({names} {self.stream} > streams.name"
            f"    ORDER BY {self.stream} LIMIT 1)"
            f"  FROM streams WHERE streams.name IS NOT NULL LIMIT ?2) "
            f"SELECT {self._columns} FROM streams CROSS JOIN {self.name} ON id = ("
            f"  SELECT min(id) FROM {self.name}"
            f"  WHERE refused IS NULL AND {self.stream} = streams.name)",
            [after, limit],
        )
        return [_waiting(row) for row in rows]

    def next(self, db: Connection, stream: str) -> Waiting | None:
        """Return the oldest message of a stream."""
        row = db.execute(
            f"SELECT {self._columns} FROM {self.name} "
            f"WHERE refused IS NULL AND {self.stream} = ? ORDER BY id LIMIT 1",
            [stream],
        ).fetchone()
        return _waiting(row) if row else None

    def forget(self, db: Connection, waiting: Waiting) -> int:
        """Delete a message; return how many there were."""
        return _changed(
            db.execute(
                f"DELETE FROM {self.name} WHERE id = ? AND idempotency_key = ?",
                [waiting.id, waiting.key],
            )
        )

    def set_aside(self, db: Connection, waiting: Waiting, reason: str) -> int:
        """Set a message aside that waits; return how many there were."""
        return _changed(
            db.execute(
                f"UPDATE {self.name} SET refused = ?, refused_at = ? "
                "WHERE id = ? AND idempotency_key = ? AND refused IS NULL",
                [reason, time.time(), waiting.id, waiting.key],
            )
        )

    def doubt(self, db: Connection, waiting: Waiting, seconds: float, reason: str) -> None:
        """Note the time that a message has been in doubt."""
        db.execute(
            f"UPDATE {self.name} SET doubted = ?, trouble = ? WHERE id = ? AND idempotency_key = ?",
            [seconds, reason, waiting.id, waiting.key],
        )

    def count(self, db: Connection) -> Counts:
        """Count the messages."""
        waiting, refused = (
            db.execute(f"SELECT count(*) FROM {self.name} WHERE refused IS {which}").fetchone()[0]
            for which in ("NULL", "NOT NULL")
        )
        return Counts(int(waiting), int(refused))

    def backlog(self, db: Connection) -> Backlog:
        """Count the messages, and say since when the oldest of them waits."""
        counts = self.count(db)
        row = db.execute(
            f"SELECT {self.since} FROM {self.name} WHERE refused IS NULL ORDER BY id LIMIT 1"
        ).fetchone()
        oldest = row[0] if row else None
        return Backlog(waiting=counts.waiting, set_aside=counts.set_aside, oldest_at=oldest)

    def prune(self, db: Connection, *, most_bytes: int | None = None) -> int:
        """Forget what was set aside longest ago and is too much; return how many that were."""
        rows = db.execute(
            f"SELECT id, {'0' if most_bytes is None else self.size} FROM {self.name} "
            "WHERE refused IS NOT NULL ORDER BY refused_at DESC"
        ).fetchall()
        too_many = list(_beyond(rows, most_bytes))
        for identifier in too_many:
            db.execute(f"DELETE FROM {self.name} WHERE id = ?", [identifier])
        if too_many:
            log.warning("%d messages that were set aside first are forgotten", len(too_many))
        return len(too_many)

    def entries(self, db: Connection, limit: int) -> list[Entry]:
        """Return what is set aside and what waits, the oldest of each first."""
        return [
            Entry(*row)
            for which in ("NOT NULL", "NULL")
            for row in db.execute(
                f"SELECT id, {self.kind}, deployment, {self.stream}, {self.since}, {self.size}, "
                f"refused IS NOT NULL, coalesce(refused, trouble) FROM {self.name} "
                f"WHERE refused IS {which} ORDER BY id LIMIT ?",
                [limit],
            )
        ]

    def send_again(self, db: Connection, identifier: int | None) -> int:
        """Let what is set aside wait again, all of it without an id; return how many there were.

        It keeps its place: it goes before later messages of its stream.
        """
        return _changed(
            db.execute(
                f"UPDATE {self.name} SET refused = NULL, refused_at = NULL, doubted = 0, "
                "trouble = '' WHERE refused IS NOT NULL AND id = coalesce(?, id)",
                [identifier],
            )
        )

    def drop(self, db: Connection, identifier: int) -> int:
        """Delete a message, whether it waits or not; return how many there were."""
        return _changed(db.execute(f"DELETE FROM {self.name} WHERE id = ?", [identifier]))

    @property
    def _columns(self) -> str:
        return f"id, idempotency_key, {self.stream}, {self.size}, doubted"


def _beyond(rows: Sequence[tuple[int, int]], most_bytes: int | None) -> Iterator[int]:
    kept = 0
    for number, (identifier, size) in enumerate(rows):
        kept += size
        if number >= SET_ASIDE_KEPT or (most_bytes is not None and kept > most_bytes and number):
            yield identifier


def _waiting(row: tuple[Any, ...]) -> Waiting:
    identifier, key, stream, size, doubted = row
    return Waiting(id=identifier, key=key, stream=stream, size=size or 0, doubted=doubted)


def _changed(cursor: Any) -> int:
    return int(cursor.rowcount)
