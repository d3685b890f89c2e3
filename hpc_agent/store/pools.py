"""Pools: who waits for a slot, the allocations, what warms them, and why they came and went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from hpc_agent.store import pauses, workers
from hpc_agent.store.phases import FINAL, LIVE, Phase
from hpc_agent.store.workers import Placement, Worker, WorkerKind

_DECISIONS_KEPT = 500
# A code location that has executed nothing for so long may be gone, as branch deployments are.
_TEMPLATES_KEPT_SECONDS = 7 * 86400.0
_WAITING = (
    f"w.phase = '{Phase.INTENT.value}' AND w.placement = '{Placement.POOL.value}' AND w.pool = ?"
)


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that was decided on a pool; ``at`` in seconds since the epoch."""

    at: float
    words: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a pool starts no allocation any more; ``since`` in seconds since the epoch."""

    since: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """How many of each a pool has; ``slots`` are those that supervisors have told of."""

    allocations: int
    slots: int
    busy: int
    waiting: int


def occupancy(db: Database, pool: str) -> Occupancy:
    """Count what a pool has, and what waits for it and is not paused."""
    there = [each.key for each in allocations(db, pool)]
    waits = f"{_WAITING}{pauses.condition(db, of='w')}"
    found = db.execute(f"SELECT count(*) FROM workers AS w WHERE {waits}", [pool])  # noqa: S608
    return Occupancy(
        allocations=len(there),
        slots=sum(each.slots for key in there for each in supervisors(db, key)),
        busy=sum(len(workers.in_pack(db, key)) for key in there),
        waiting=int(found.fetchone()[0]),
    )


def waiting(db: Database, pool: str, limit: int = 1000) -> list[Worker]:
    """Return the workers that wait for a slot and are not paused, the oldest first."""
    paused = pauses.condition(db, of="w")
    return list(
        workers.select(db, f"{_WAITING}{paused} ORDER BY w.created_at LIMIT ?", [pool, limit])
    )


def names_waited_for(db: Database) -> list[str]:
    """Return the pools that workers wait for, or that have allocations in the queue."""
    found = db.execute(
        "SELECT DISTINCT pool FROM workers WHERE phase = ? AND placement = ? AND pool IS NOT NULL "
        "UNION SELECT DISTINCT pool FROM workers WHERE pool IS NOT NULL AND kind = ? "
        "AND concluded_at IS NULL",
        [Phase.INTENT.value, Placement.POOL.value, WorkerKind.POOL.value],
    )
    return [name for (name,) in found]


def allocations(db: Database, pool: str) -> list[Worker]:
    """Return the allocations of a pool that are not over, the oldest first."""
    marks = ", ".join("?" * len(LIVE))
    return list(
        workers.select(
            db,
            f"w.pool = ? AND w.kind = ? AND w.phase IN ({marks}) ORDER BY w.created_at, w.rowid",
            [pool, WorkerKind.POOL, *LIVE],
        )
    )


def past_allocations(db: Database, pool: str, *, since: float, limit: int) -> list[Worker]:
    """Return the last allocations that are over and were made since then, the newest first."""
    marks = ", ".join("?" * len(FINAL))
    return list(
        workers.select(
            db,
            f"w.pool = ? AND w.kind = ? AND w.created_at >= ? AND w.phase IN ({marks}) "
            "ORDER BY w.created_at DESC, w.rowid DESC LIMIT ?",
            [pool, WorkerKind.POOL, since, *FINAL, limit],
        )
    )


def with_job(db: Database, job_id: str) -> Worker | None:
    """Return the allocation that lives in this job of the scheduler."""
    found = workers.select(
        db,
        "w.kind = ? AND w.key IN (SELECT worker_key FROM jobs WHERE job_id = ? AND NOT is_over)",
        [WorkerKind.POOL, job_id],
    )
    return next(found, None)


def board(db: Database, key: str, allocation: Worker, *, is_claimed: bool) -> None:
    """Let a worker live in an allocation, and have its job."""
    db.execute(
        "UPDATE workers SET placement = ?, pool = ?, pack_key = ?, is_claimed = ? WHERE key = ?",
        [Placement.POOL.value, allocation.pool, allocation.key, int(is_claimed), key],
    )
    workers.share_job(db, key, allocation.job)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """What the supervisor of a node of an allocation has said of itself; ``templates`` by id."""

    node: int
    hostname: str
    slots: int
    templates: Mapping[str, Any]


def keep_supervisor(db: Database, key: str, said: Supervisor) -> None:
    """Keep what a supervisor says of itself, where it is news."""
    content = json.dumps(said.templates, sort_keys=True)
    db.execute(
        "INSERT INTO pool_supervisors (key, node, hostname, slots, templates) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT (key, node) DO UPDATE SET "
        "hostname = excluded.hostname, slots = excluded.slots, templates = excluded.templates "
        "WHERE hostname != excluded.hostname OR slots != excluded.slots "
        "OR templates != excluded.templates",
        [key, said.node, said.hostname, said.slots, content],
    )


def supervisors(db: Database, key: str) -> list[Supervisor]:
    """Return what the supervisors of an allocation have said, by their nodes."""
    found = db.execute(
        "SELECT node, hostname, slots, templates FROM pool_supervisors WHERE key = ? ORDER BY node",
        [key],
    )
    return [
        Supervisor(node=node, hostname=hostname, slots=slots, templates=json.loads(templates))
        for node, hostname, slots, templates in found
    ]


def host_of(db: Database, member: Worker) -> str:
    """Return the name of the node that a member lives on, "" where it is not known."""
    said = {each.node: each.hostname for each in supervisors(db, str(member.pack_key))}
    return "" if member.pool_node is None else said.get(member.pool_node, "")


def keep_template(
    db: Database,
    pool: str,
    *,
    deployment: str,
    location: str,
    content: Mapping[str, Any],
    now: float,
) -> None:
    """Keep what warms the pool for a code location: that of its last run."""
    db.execute("DELETE FROM pool_templates WHERE used_at < ?", [now - _TEMPLATES_KEPT_SECONDS])
    db.execute(
        "INSERT OR REPLACE INTO pool_templates (pool, deployment, location, content, used_at) "
        "VALUES (?, ?, ?, ?, ?)",
        [pool, deployment, location, json.dumps(content, sort_keys=True), now],
    )


def templates(
    db: Database, pool: str, locations: Sequence[str], *, now: float, limit: int
) -> list[dict[str, Any]]:
    """Return what warms a pool for these code locations, the last used first."""
    marks = ", ".join("?" * len(locations))
    found = db.execute(
        f"SELECT content FROM pool_templates WHERE pool = ? AND location IN ({marks}) "  # noqa: S608
        "AND used_at >= ? ORDER BY used_at DESC LIMIT ?",
        [pool, *locations, now - _TEMPLATES_KEPT_SECONDS, limit],
    )
    return [json.loads(content) for (content,) in found]


def note(db: Database, pool: str, words: str, *, now: float) -> None:
    """Write a decision down, unless it is the last one again."""
    last = db.execute(
        "SELECT words FROM pool_decisions WHERE pool = ? ORDER BY id DESC LIMIT 1", [pool]
    ).fetchone()
    if last is not None and last[0] == words:
        return
    db.execute("INSERT INTO pool_decisions (pool, at, words) VALUES (?, ?, ?)", [pool, now, words])
    db.execute(
        "DELETE FROM pool_decisions WHERE pool = ? AND id <= (SELECT id FROM pool_decisions "
        "WHERE pool = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
        [pool, pool, _DECISIONS_KEPT],
    )


def decisions(db: Database, pool: str, limit: int = 50) -> Sequence[Decision]:
    """Return the last decisions on a pool, the oldest first."""
    found = db.execute(
        "SELECT at, words FROM pool_decisions WHERE pool = ? ORDER BY id DESC LIMIT ?",
        [pool, limit],
    ).fetchall()
    return [Decision(*row) for row in reversed(found)]


def stop(db: Database, pool: str, reason: str, *, now: float) -> None:
    """Start no allocation of a pool any more."""
    db.execute(
        "INSERT OR REPLACE INTO pool_stops (pool, since, reason) VALUES (?, ?, ?)",
        [pool, now, reason],
    )


def resume(db: Database, pool: str, *, now: float) -> bool:
    """Start allocations again, and count failed ones from now on; False when it was not stopped."""
    was_stopped = stopped(db, pool) is not None
    db.execute(
        "INSERT OR REPLACE INTO pool_stops (pool, since, reason) VALUES (?, ?, NULL)", [pool, now]
    )
    return was_stopped


def stopped(db: Database, pool: str) -> Stop | None:
    """Return why a pool is stopped, None when it is not."""
    row = db.execute(
        "SELECT since, reason FROM pool_stops WHERE pool = ? AND reason IS NOT NULL", [pool]
    ).fetchone()
    return Stop(*row) if row else None


def failures_count_from(db: Database, pool: str) -> float:
    """Return since when failed starts of a pool count."""
    row = db.execute("SELECT since FROM pool_stops WHERE pool = ?", [pool]).fetchone()
    return float(row[0]) if row else 0.0
