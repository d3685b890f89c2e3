"""Requests of the control plane, written down before anything else happens to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from sqlite_utils import Database

KEEP_ANSWERED_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was popped; ``body`` is Dagster's serdes JSON, unopened."""

    request_id: str
    api: str
    body: str
    deployment: str
    is_branch_deployment: bool
    received_at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What has become of a request: the worker that it became, and when it was answered."""

    request: Request
    worker_key: str | None
    answered_at: float | None


def receive(db: Database, requests: Iterable[Request]) -> list[Request]:
    """Write requests down and return those that are new: one may be handed out twice."""
    fresh = []
    for request in requests:
        inserted = db.execute(
            "INSERT OR IGNORE INTO inbox (request_id, api, body, deployment, "
            "is_branch_deployment, received_at) VALUES (?, ?, ?, ?, ?, ?)",
            list(astuple(request)),
        )
        if inserted.rowcount == 1:
            fresh.append(request)
    return fresh


def to_serve(db: Database) -> list[str]:
    """Return the ids of the requests that are neither answered nor become a worker, oldest first.

    What they say is read once: there may be thousands, and a loop asks for them at each change.
    """
    rows = db.execute(
        "SELECT request_id FROM inbox WHERE answered_at IS NULL AND worker_key IS NULL "
        "ORDER BY received_at, rowid"
    )
    return [request_id for (request_id,) in rows]


def still_to_serve(db: Database, request_ids: Sequence[str]) -> list[Request]:
    """Return those of these requests that are to be served still, oldest first."""
    marks = ", ".join("?" * len(request_ids))
    rows = db.execute(
        "SELECT request_id, api, body, deployment, is_branch_deployment, received_at "  # noqa: S608
        f"FROM inbox WHERE request_id IN ({marks}) AND answered_at IS NULL AND worker_key IS NULL "
        "ORDER BY received_at, rowid",
        list(request_ids),
    )
    return [_request(row) for row in rows]


def has_launches(db: Database) -> bool:
    """Whether launches have been received that are no intents yet."""
    row = db.execute(
        "SELECT EXISTS (SELECT 1 FROM inbox WHERE answered_at IS NULL AND worker_key IS NULL "
        "AND api = 'LAUNCH_RUN')"
    ).fetchone()
    return bool(row[0])


def hand_over(db: Database, request_id: str, worker_key: str) -> None:
    """Note that a request has become a worker, whose submission or end answers it."""
    db.execute("UPDATE inbox SET worker_key = ? WHERE request_id = ?", [worker_key, request_id])


def is_open(db: Database, request_id: str | None) -> bool:
    """Whether a request waits for its answer."""
    row = db.execute(
        "SELECT 1 FROM inbox WHERE request_id = ? AND answered_at IS NULL", [request_id]
    ).fetchone()
    return row is not None


def find(db: Database, request_id: str) -> Request | None:
    """Return one request."""
    row = db.execute(
        "SELECT request_id, api, body, deployment, is_branch_deployment, received_at "
        "FROM inbox WHERE request_id = ?",
        [request_id],
    ).fetchone()
    return _request(row) if row else None


def recent(db: Database, *, with_answered: bool, since: float, limit: int) -> list[Progress]:
    """Return requests for people to read, the newest first."""
    rows = db.execute(
        "SELECT request_id, api, body, deployment, is_branch_deployment, received_at, worker_key, "
        "answered_at FROM inbox WHERE received_at >= ? AND (? OR answered_at IS NULL) "
        "ORDER BY received_at DESC, rowid DESC LIMIT ?",
        [since, with_answered, limit],
    )
    return [Progress(_request(row[:6]), *row[6:]) for row in rows]


def mark_answered(db: Database, request_id: str, now: float) -> bool:
    """Note that the answer is in the outbox; False when it was there already."""
    marked = db.execute(
        "UPDATE inbox SET answered_at = ? WHERE request_id = ? AND answered_at IS NULL",
        [now, request_id],
    )
    return bool(marked.rowcount)


def reopen(db: Database, request_id: str) -> bool:
    """Let an answered request be served once more; False when it is not answered."""
    opened = db.execute(
        "UPDATE inbox SET answered_at = NULL, worker_key = NULL "
        "WHERE request_id = ? AND answered_at IS NOT NULL",
        [request_id],
    )
    return bool(opened.rowcount)


def purge(db: Database, before: float, limit: int = 100) -> int:
    """Forget some requests that were answered before then; return how many."""
    deleted = db.execute(
        "DELETE FROM inbox WHERE rowid IN (SELECT rowid FROM inbox WHERE answered_at < ? LIMIT ?)",
        [before, limit],
    )
    return int(deleted.rowcount)


def _request(row: tuple[Any, ...]) -> Request:
    request_id, api, body, deployment, is_branch_deployment, received_at = row
    return Request(request_id, api, body, deployment, bool(is_branch_deployment), received_at)
