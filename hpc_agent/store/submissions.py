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


def launches_coming(db: Database) -> bool:
    """Whether launches have been received that are no intents yet."""
    row = db.execute(
        "SELECT EXISTS (SELECT 1 FROM inbox WHERE answered_at IS NULL AND api = 'LAUNCH_RUN' "
        "AND request_id NOT IN (SELECT request_id FROM jobs WHERE phase IN (?, ?) "
        "AND request_id IS NOT NULL))",
        [Phase.INTENT.value, Phase.SUBMITTING.value],
    ).fetchone()
    return bool(row[0])


def take(db: Database, likeness: str, array_key: str, *, limit: int, now: float) -> list[Job]:
    """Note that these intents are about to be submitted: as one array, or a single one as it is.

    They are the oldest that are due, at most ``limit``; the order is that of the array's tasks.
    """
    rows = db.execute(
        f"SELECT key FROM jobs WHERE {_DUE} = ? "  # noqa: S608
        "ORDER BY created_at, rowid LIMIT ?",
        [now, likeness, limit],
    ).fetchall()
    return [
        begin(db, key, now=now, array_key=array_key, index=index)
        if len(rows) > 1
        else begin(db, key, now=now)
        for index, (key,) in enumerate(rows)
    ]


def begin(
    db: Database, key: str, *, now: float, array_key: str | None = None, index: int | None = None
) -> Job:
    """Note that a job is about to be submitted."""
    return jobs.change(
        db,
        key,
        now=now,
        source="agent",
        phase=Phase.SUBMITTING,
        submitting_since=now,
        array_key=array_key,
        array_index=index,
    )


def due_like(db: Database, likeness: str, now: float) -> list[Job]:
    """Return the intents of a likeness that are due."""
    keys = db.execute(f"SELECT key FROM jobs WHERE {_DUE} = ?", [now, likeness])  # noqa: S608
    return [jobs.get(db, key) for (key,) in keys.fetchall()]


def submission_of(job: Job) -> str:
    """Return the key that names a job's submission to the scheduler: its array's, or its own."""
    return job.array_key or job.key


def submitting(db: Database) -> list[str]:
    """Return the submissions of which it is not known how they ended, the oldest first."""
    rows = db.execute(
        "SELECT coalesce(array_key, key) AS name FROM jobs WHERE phase = ? "
        "GROUP BY name ORDER BY min(submitting_since)",
        [Phase.SUBMITTING.value],
    )
    return [name for (name,) in rows]


def members(db: Database, submission: str) -> list[Job]:
    """Return the jobs of a submission, in the order of an array's indices."""
    single = jobs.find(db, submission)
    return [single] if single is not None else jobs.of_array(db, submission)
