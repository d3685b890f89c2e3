"""How much there is of what, counted in one transaction by the indexes over live rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.outgoing.queue import Backlog
from hpc_agent.store import pauses
from hpc_agent.store.outbox import MESSAGES
from hpc_agent.store.pauses import Pause


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCount:
    """Workers that are alike; ``state`` is the scheduler's, ``location`` empty for none."""

    kind: str
    phase: str
    state: str
    location: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCount:
    """Code servers of a location that are alike."""

    status: str
    location: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Everything that is live; times are seconds since the epoch, None without a request."""

    workers: Sequence[WorkerCount]
    servers: Sequence[ServerCount]
    requests: int
    oldest_request_at: float | None
    outbox: Backlog
    paused: Sequence[Pause]


def take_census(db: Database) -> Census:
    """Count what is live."""
    requests, oldest = db.execute(
        "SELECT count(*), min(received_at) FROM inbox "
        "WHERE answered_at IS NULL AND worker_key IS NULL"
    ).fetchone()
    return Census(
        workers=_workers(db),
        servers=_servers(db),
        requests=int(requests),
        oldest_request_at=oldest,
        outbox=MESSAGES.backlog(db),
        paused=pauses.all_of(db),
    )


def _workers(db: Database) -> list[WorkerCount]:
    rows = db.execute(
        "SELECT w.kind, w.phase, coalesce(w.outcome, j.state, 'UNKNOWN'), "
        "coalesce(w.location, ''), count(*) "
        "FROM workers AS w LEFT JOIN jobs AS j ON j.id = w.current_job "
        "WHERE w.concluded_at IS NULL GROUP BY 1, 2, 3, 4"
    )
    return [
        WorkerCount(kind=kind, phase=phase, state=state, location=location, number=number)
        for kind, phase, state, location, number in rows
    ]


def _servers(db: Database) -> list[ServerCount]:
    # In full, not by a parameter: then SQLite uses the index over these rows alone.
    rows = db.execute(
        "SELECT status, location, count(*) FROM code_servers "
        "WHERE status != 'retired' GROUP BY 1, 2"
    )
    return [
        ServerCount(status=status, location=location, number=number)
        for status, location, number in rows
    ]
