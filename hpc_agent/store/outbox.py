"""What is still to be told to the control plane, in order, each under a key that makes it once."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

EVENT = "event"
RUN_TAGS = "run_tags"
RESPONSE = "response"


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
        [kind, deployment, order_key, idempotency_key, payload, now],
    )


def waiting(db: Database, limit: int) -> list[Message]:
    """Return the oldest messages that are not sent."""
    rows = db.execute(
        "SELECT id, kind, deployment, order_key, idempotency_key, payload, created_at "
        "FROM outbox WHERE refused IS NULL ORDER BY id LIMIT ?",
        [limit],
    )
    return [Message(*row) for row in rows]


def count_waiting(db: Database) -> int:
    """Return how many messages are not sent."""
    return int(db.execute("SELECT count(*) FROM outbox WHERE refused IS NULL").fetchone()[0])


def has_waiting(db: Database, order_key: str) -> bool:
    """Whether something with this order key is not sent."""
    row = db.execute(
        "SELECT 1 FROM outbox WHERE order_key = ? AND refused IS NULL LIMIT 1", [order_key]
    ).fetchone()
    return row is not None


def sent(db: Database, message: Message) -> None:
    """Forget a message that the control plane has taken."""
    db.execute("DELETE FROM outbox WHERE id = ?", [message.id])


def refused(db: Database, message: Message, reason: str) -> None:
    """Set a message aside that the control plane does not want."""
    db.execute("UPDATE outbox SET refused = ? WHERE id = ?", [reason, message.id])
