"""Jobs that are alike, and the job arrays that they are submitted in."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job, Phase

_DUE = f"phase = '{Phase.INTENT.value}' AND not_before <= ? AND likeness"


@dataclass(frozen=True, slots=True)
class Alike:
    """How many intents of one likeness are due, and since when the oldest of them is."""

    likeness: str
    count: int
    oldest: float


def due(db: Database, now: float) -> list[Alike]:
    """Return the likenesses of which intents are due, the oldest first."""
    rows = db.execute(
        "SELECT likeness, count(*), min(max(created_at, not_before)) FROM jobs "  # noqa: S608
        f"WHERE {_DUE} IS NOT NULL GROUP BY likeness ORDER BY min(created_at)",
        [now],
    )
    return [Alike(*row) for row in rows]


def take(db: Database, likeness: str, array_key: str, *, limit: int, now: float) -> list[Job]:
    """Note that these intents are about to be submitted: as one array, or a single one as it is.

    They are the oldest that are due, at most ``limit``; the order is that of the array's tasks.
    """
    rows = db.execute(
        f"SELECT key FROM jobs WHERE {_DUE} = ? "  # noqa: S608
        "ORDER BY created_at, rowid LIMIT ?",
        [now, likeness, limit],
    ).fetchall()
    is_array = len(rows) > 1
    return [
        jobs.change(
            db,
            key,
            now=now,
            source="agent",
            phase=Phase.SUBMITTING,
            submitting_since=now,
            array_key=array_key if is_array else None,
            array_index=index if is_array else None,
        )
        for index, (key,) in enumerate(rows)
    ]
