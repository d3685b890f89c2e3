"""Jobs: what the scheduler has, and all that it says of it.

A worker has none, one or several of them: a controller that was mute may carry out an old request
after a search found nothing. Which one counts, the worker says (``current_job``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from hpc_agent.slurm.state import JobState
from hpc_agent.store import rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of the scheduler; times are seconds since the epoch.

    A job id alone is no identity: ids are reused after a controller has lost its state. So
    ``submit_time`` is the scheduler's own and stays unknown until it has said it; ``submitted_at``
    is when the agent learned of the job. ``name`` is the one that the scheduler shows, which a
    site's plugin may have rewritten. ``deadline_at`` is when its time limit ends it.
    ``restart_count`` counts the times that Slurm has requeued it. ``absent_seconds`` is how long it
    has been absent under a scheduler that answers. ``cancelled_at`` is when scancel was last
    called. ``is_over``: nothing further is expected of it. ``position`` is where it was at the last
    look among the ``position_among`` pending jobs of ``position_partition``.
    """

    id: int
    worker_key: str
    job_id: str
    submitted_at: float
    submit_time: float | None = None
    name: str = ""
    state: JobState = JobState.UNKNOWN
    reason: str = ""
    partition: str = ""
    nodes: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    deadline_at: float | None = None
    expected_start: float | None = None
    restart_count: int = 0
    exit_code: int | None = None
    signal: int | None = None
    absent_seconds: float = 0.0
    cancelled_at: float | None = None
    is_over: bool = False
    position: int | None = None
    position_among: int | None = None
    position_partition: str = ""


COLUMNS = rows.columns_of(Job)
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM jobs"  # noqa: S608 - our own column names


def insert(db: Database, worker_key: str, job_id: str, *, now: float) -> Job:
    """Add a job that has become known."""
    values = {"worker_key": worker_key, "job_id": job_id, "submitted_at": now}
    return get(db, rows.insert(db, "jobs", values).lastrowid)


def change(db: Database, identity: int, **changes: Any) -> Job:
    """Change a job and return it."""
    rows.update(db, "jobs", "id", identity, changes)
    return get(db, identity)


def get(db: Database, identity: int) -> Job:
    """Return a job by its row. Raises KeyError when there is none."""
    row = db.execute(f"{_SELECT} WHERE id = ?", [identity]).fetchone()
    if row is None:
        raise KeyError(identity)
    return job_of(row)


def of_worker(db: Database, worker_key: str) -> list[Job]:
    """Return a worker's own jobs, the first known first; not that of its pack."""
    found = db.execute(f"{_SELECT} WHERE worker_key = ? ORDER BY id", [worker_key])
    return [job_of(row) for row in found]


def of_array(db: Database, array_key: str) -> list[Job]:
    """Return the jobs of all workers that are tasks of an array, the first known first."""
    names = ", ".join(f"j.{name}" for name in COLUMNS)
    found = db.execute(
        f"SELECT {names} FROM workers AS w JOIN jobs AS j ON j.worker_key = w.key "  # noqa: S608
        "WHERE w.array_key = ? ORDER BY j.id",
        [array_key],
    )
    return [job_of(row) for row in found]


def live_of(db: Database, worker_key: str, job_id: str) -> Job | None:
    """Return the job with this id that is not over."""
    row = db.execute(
        f"{_SELECT} WHERE worker_key = ? AND job_id = ? AND NOT is_over ORDER BY id DESC LIMIT 1",
        [worker_key, job_id],
    ).fetchone()
    return job_of(row) if row else None


def with_ids(db: Database, identities: Sequence[int]) -> list[Job]:
    """Return these jobs, the first known first."""
    marks = ", ".join("?" * len(identities))
    found = db.execute(f"{_SELECT} WHERE id IN ({marks}) ORDER BY id", list(identities))
    return [job_of(row) for row in found]


def job_of(row: Sequence[Any]) -> Job:
    """Return the job of a row of ``COLUMNS``."""
    values = dict(zip(COLUMNS, row, strict=True))
    values["state"] = JobState(values["state"])
    values["is_over"] = bool(values["is_over"])
    return Job(**values)
