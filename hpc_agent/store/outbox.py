"""What is still to be told to the control plane, in order, each under a key that makes it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.errors import UnreadableMessageError
from hpc_agent.outgoing.queue import Counts, Waiting
from hpc_agent.outgoing.table import MessageTable
from hpc_agent.outgoing.text import storable, storable_json
from hpc_agent.store.database import Store

EVENT = "event"
RUN_TAGS = "run_tags"
RESPONSE = "response"

MESSAGES = MessageTable(
    name="outbox", stream="order_key", size="length(payload)", since="created_at", kind="kind"
)


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell.

    ``order_key``: messages with the same key are sent one after the other (a run's events).
    ``idempotency_key``: unique; the same message added twice is kept once.
    """

    id: int
    kind: str
    deployment: str
    order_key: str
    idempotency_key: str
    payload: str
    created_at: float


def add(
    db: Database,
    *,
    kind: str,
    deployment: str,
    order_key: str,
    idempotency_key: str,
    payload: str,
    now: float,
) -> None:
    """Put a message in; one with the same idempotency key stays alone."""
    db.execute(
        "INSERT OR IGNORE INTO outbox (kind, deployment, order_key, idempotency_key, payload, "
        "created_at) VALUES (?, ?, ?, ?, ?, ?)",
        [
            *map(storable, (kind, deployment, order_key, idempotency_key)),
            storable_json(payload),
            now,
        ],
    )


def count_waiting(db: Database) -> int:
    """Return how many messages are not sent."""
    return MESSAGES.count(db).waiting


def has_waiting(db: Database, order_key: str) -> bool:
    """Whether something with this order key is not sent."""
    return MESSAGES.next(db, order_key) is not None


def forget(db: Database, idempotency_key: str) -> None:
    """Delete a message, so that another one may have its key."""
    db.execute("DELETE FROM outbox WHERE idempotency_key = ?", [idempotency_key])


class Outbox:
    """The outbox as the drain sees it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def head(self, after: str | None, limit: int) -> Sequence[Waiting]:
        """Return the oldest message of each of the next streams."""
        return await self._store.run(lambda db: MESSAGES.heads(db, after, limit))

    async def load(self, waiting: Waiting) -> Message | None:
        """Read a message, None when it is gone. Raises UnreadableMessageError."""
        return await self._store.run(lambda db: _load(db, waiting))

    async def sent(self, waiting: Waiting) -> Waiting | None:
        """Forget a message that the control plane has; return the next one of its stream."""

        def forget(db: Database) -> Waiting | None:
            MESSAGES.forget(db, waiting)
            return MESSAGES.next(db, waiting.stream)

        return await self._store.run(forget)

    async def set_aside(self, waiting: Waiting, reason: str) -> Waiting | None:
        """Keep a message out of the way; return the next one of its stream."""

        def keep(db: Database) -> Waiting | None:
            MESSAGES.set_aside(db, waiting, reason)
            MESSAGES.prune(db)
            return MESSAGES.next(db, waiting.stream)

        return await self._store.run(keep)

    async def doubt(self, waiting: Waiting, seconds: float, reason: str) -> None:
        """Note for how long the control plane has answered a message with errors of its own."""
        await self._store.run(lambda db: MESSAGES.doubt(db, waiting, seconds, reason))

    async def count(self) -> Counts:
        """Count the messages."""
        return await self._store.run(MESSAGES.count)


def _load(db: Database, waiting: Waiting) -> Message | None:
    # As bytes: SQLite would fail on text that is damaged, without saying that it is this row.
    names = ("kind", "deployment", "order_key", "idempotency_key", "payload")
    columns = ", ".join(f"CAST({name} AS BLOB)" for name in names)
    row = db.execute(
        f"SELECT {columns}, created_at FROM outbox "  # noqa: S608 - names from above
        "WHERE id = ? AND idempotency_key = ? AND refused IS NULL",
        [waiting.id, waiting.key],
    ).fetchone()
    if row is None:
        return None
    try:
        kind, deployment, order_key, key, payload = (bytes(each).decode() for each in row[:-1])
    except (TypeError, UnicodeDecodeError) as error:
        raise UnreadableMessageError(f"the message cannot be read: {error}") from error
    return Message(waiting.id, kind, deployment, order_key, key, payload, row[-1])
