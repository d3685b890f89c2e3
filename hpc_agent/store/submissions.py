"""Intents that are due, workers that are alike, and the submissions that they are made in."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.store import jobs, pauses, workers
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, Worker

# What waits for a slot of a pool is not submitted.
_INTENT = f"phase = '{Phase.INTENT.value}' AND placement != '{Placement.POOL.value}'"
_SUBMITTING = f"phase = '{Phase.SUBMITTING.value}'"
_DUE = f"{_INTENT} AND not_before <= ? AND likeness"


@dataclass(frozen=True, slots=True)
class Alike:
    """How many intents of one likeness are due, and since when the oldest of them is."""

    likeness: str
    count: int
    oldest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One call of sbatch of which it is not known how it ended.

    ``key`` names it to the scheduler; ``jobs`` are those of its workers that are known.
    """

    key: str
    since: float
    workers: tuple[Worker, ...]
    jobs: tuple[Job, ...]


def single(db: Database, now: float, limit: int = 100, *, held: Collection[str] = ()) -> list[str]:
    """Return intents that are due and like no other, oldest first, but for those ``held`` back."""
    others, keys = _but(held)
    found = db.execute(
        f"SELECT key FROM workers WHERE {_INTENT} AND not_before <= ? AND pack_key IS NULL "  # noqa: S608
        f"AND likeness IS NULL{pauses.condition(db)}{others} ORDER BY created_at LIMIT ?",
        [now, *keys, limit],
    )
    return [key for (key,) in found]


def next_due(db: Database, now: float) -> float | None:
    """Return when the next intent is due that is not due yet."""
    row = db.execute(
        f"SELECT min(not_before) FROM workers WHERE {_INTENT} AND not_before > ?",  # noqa: S608
        [now],
    ).fetchone()
    return None if row[0] is None else float(row[0])


def due(db: Database, now: float, *, held: Collection[str] = ()) -> list[Alike]:
    """Return the likenesses of which intents are due, the oldest first, but for those ``held``."""
    others, keys = _but(held)
    found = db.execute(
        "SELECT likeness, count(*), min(max(created_at, not_before)) FROM workers "  # noqa: S608
        f"WHERE {_DUE} IS NOT NULL{pauses.condition(db)}{others} "
        "GROUP BY likeness ORDER BY min(created_at)",
        [now, *keys],
    )
    return [Alike(*row) for row in found]


def take(
    db: Database,
    likeness: str,
    array_key: str,
    *,
    limit: int,
    now: float,
    first: int = 0,
    held: Collection[str] = (),
) -> list[Worker]:
    """Note that these intents are about to be submitted: as one array, or a single one as it is.

    They are the oldest that are due and not ``held`` back, at most ``limit``; the order is that of
    the array's tasks.
    ``first`` is the index of the first of them in an array that others have been taken for.
    """
    others, keys = _but(held)
    found = db.execute(
        f"SELECT key FROM workers WHERE {_DUE} = ?{pauses.condition(db)}{others} "  # noqa: S608
        "ORDER BY created_at, rowid LIMIT ?",
        [now, likeness, *keys, limit],
    ).fetchall()
    return [
        begin(db, key, now=now, array_key=array_key, index=index)
        if first or len(found) > 1
        else begin(db, key, now=now)
        for index, (key,) in enumerate(found, first)
    ]


def begin(
    db: Database, key: str, *, now: float, array_key: str | None = None, index: int | None = None
) -> Worker:
    """Note that a worker is about to be submitted."""
    return workers.change(
        db,
        key,
        now=now,
        source="agent",
        phase=Phase.SUBMITTING,
        submitting_since=now,
        array_key=array_key,
        array_index=index,
    )


def to_be_told(db: Database, likeness: str, reason: str, limit: int) -> list[str]:
    """Return the intents of a likeness that have not been told what they wait for."""
    found = db.execute(
        f"SELECT key FROM workers WHERE {_INTENT} AND likeness = ? AND waits_for != ? LIMIT ?",  # noqa: S608
        [likeness, reason, limit],
    )
    return [key for (key,) in found]


def like(db: Database, likeness: str) -> list[str]:
    """Return the intents of a likeness."""
    found = db.execute(f"SELECT key FROM workers WHERE {_INTENT} AND likeness = ?", [likeness])  # noqa: S608
    return [key for (key,) in found]


def key_of(worker: Worker) -> str:
    """Return the key that names a worker's submission to the scheduler: its array's, or its own."""
    return worker.array_key or worker.key


def unsure(db: Database) -> list[str]:
    """Return the submissions of which it is not known how they ended, the oldest first."""
    found = db.execute(
        "SELECT coalesce(array_key, key) AS name FROM workers "  # noqa: S608
        f"WHERE {_SUBMITTING} GROUP BY name ORDER BY min(submitting_since)"
    )
    return [name for (name,) in found]


def submission(db: Database, key: str) -> Submission | None:
    """Return a submission of which it is not known how it ended; None when that is known now."""
    alone = workers.find(db, key)
    members = [alone] if alone is not None else workers.of_array(db, key)
    open_ones = [worker for worker in members if worker.phase is Phase.SUBMITTING]
    if not open_ones:
        return None
    known = jobs.of_worker(db, key) if alone is not None else jobs.of_array(db, key)
    return Submission(
        key=key,
        since=min(worker.submitting_since or worker.created_at for worker in open_ones),
        workers=tuple(open_ones),
        jobs=tuple(known),
    )


def _but(held: Collection[str]) -> tuple[str, list[str]]:
    """Return what SQL on workers must ask for besides, so that none of these is found."""
    if not held:
        return "", []
    return " AND key NOT IN (SELECT value FROM json_each(?))", [json.dumps(list(held))]
