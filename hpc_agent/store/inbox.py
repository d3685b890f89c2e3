"""Requests of the control plane, written down before anything else happens to them."""

from __future__ import annotations

from collections.abc import Iterable
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


def unanswered(db: Database) -> list[Request]:
    """Return the requests without an answer, oldest first."""
    rows = db.execute(
        "SELECT request_id, api, body, deployment, is_branch_deployment, received_at "
        "FROM inbox WHERE answered_at IS NULL ORDER BY received_at, rowid"
    )
    return [_request(row) for row in rows]


def find(db: Database, request_id: str) -> Request | None:
    """Return one request."""
    row = db.execute(
        "SELECT request_id, api, body, deployment, is_branch_deployment, received_at "
        "FROM inbox WHERE request_id = ?",
        [request_id],
    ).fetchone()
    return _request(row) if row else None


def mark_answered(db: Database, request_id: str, now: float) -> bool:
    """Note that the answer is in the outbox; False when it was there already."""
    marked = db.execute(
        "UPDATE inbox SET answered_at = ? WHERE request_id = ? AND answered_at IS NULL",
        [now, request_id],
    )
    return bool(marked.rowcount)


def purge(db: Database, now: float) -> None:
    """Forget requests that were answered long ago."""
    db.execute("DELETE FROM inbox WHERE answered_at < ?", [now - KEEP_ANSWERED_SECONDS])


def _request(row: tuple[Any, ...]) -> Request:
    request_id, api, body, deployment, is_branch_deployment, received_at = row
    return Request(request_id, api, body, deployment, bool(is_branch_deployment), received_at)
