"""Jobs: what the agent intends, what the scheduler has of it, and the history of both."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlite_utils import Database

from hpc_agent.slurm.state import JobState

KEEP_CONCLUDED_SECONDS = 30 * 24 * 3600.0


class JobKind(enum.Enum):
    """What runs in a job."""

    RUN_WORKER = "run_worker"
    CODE_SERVER = "code_server"
    PACK = "pack"


class Placement(enum.Enum):
    """Where a job's processes live; PACKED: in a job that code servers share, their pack."""

    JOB = "job"
    LOGIN = "login"
    PACKED = "packed"


class Phase(enum.Enum):
    """Where a job is in its life, from the agent's point of view.

    INTENT → SUBMITTING → QUEUED → RUNNING → ENDED. SUBMITTING means that sbatch may have been
    called: whoever finds a job so after a restart searches for it before submitting again.
    """

    INTENT = "intent"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self in {Phase.ENDED, Phase.REFUSED, Phase.WITHDRAWN, Phase.LOST}

    @property
    def is_submitted(self) -> bool:
        """Whether the scheduler has the job."""
        return self in {Phase.QUEUED, Phase.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job; times are seconds since the epoch.

    ``job_name`` is Dagster's: the job that the run executes. ``terminate_at`` is when a job that
    was asked to end is ended by scancel, ``cancelled_at`` when that was done. ``deadline_at`` is
    when its time limit ends it. ``placement`` and ``pack_key`` say where its processes live;
    ``pack_options`` are the options that the servers of a pack share. ``attempt`` counts a run's
    jobs from 1, ``restart_count`` the times that Slurm has requeued this one; ``overrides``
    are the Slurm options (JSON) in which an attempt differs from the first. ``measured_at`` is when
    its use of resources was told. Jobs of one ``likeness`` may be tasks of one job array;
    ``array_key`` and ``array_index`` say which task a job is, from before sbatch is called.
    ``settings`` are the Slurm options it is submitted with, each with its source (JSON).
    ``position`` is where it was at the last look among the ``position_among`` pending jobs of
    ``position_partition``.
    """

    key: str
    kind: JobKind
    phase: Phase
    deployment: str
    location: str | None
    run_id: str | None = None
    job_name: str | None = None
    request_id: str | None = None
    created_at: float
    submitting_since: float | None = None
    not_before: float = 0.0
    job_id: str | None = None
    state: JobState = JobState.UNKNOWN
    reason: str = ""
    partition: str = ""
    nodes: str = ""
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    deadline_at: float | None = None
    expected_start: float | None = None
    absent_since: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    terminate_at: float | None = None
    cancelled_at: float | None = None
    concluded_at: float | None = None
    placement: Placement = Placement.JOB
    pack_key: str | None = None
    pack_options: str = ""
    attempt: int = 1
    restart_count: int = 0
    overrides: str = ""
    cpu_seconds: float | None = None
    max_rss_kb: int | None = None
    measured_at: float | None = None
    likeness: str | None = None
    array_key: str | None = None
    array_index: int | None = None
    settings: str = ""
    position: int | None = None
    position_among: int | None = None
    position_partition: str = ""

    @property
    def is_waiting(self) -> bool:
        """Whether it is in Slurm's queue and has not started."""
        return self.phase is Phase.QUEUED and self.job_id is not None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change in a job's life; ``source`` says who saw it."""

    at: float
    phase: str
    state: str
    reason: str
    source: str


_COLUMNS = tuple(field.name for field in fields(Job))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM jobs"  # noqa: S608 - our own column names
_OPEN = "concluded_at IS NULL"


def insert(db: Database, job: Job) -> bool:
    """Add an intent; False when there is one with this key already."""
    names = ", ".join(_COLUMNS)
    marks = ", ".join("?" * len(_COLUMNS))
    inserted = db.execute(
        f"INSERT OR IGNORE INTO jobs ({names}) VALUES ({marks})",  # noqa: S608
        [_to_column(getattr(job, name)) for name in _COLUMNS],
    )
    if inserted.rowcount == 1:
        _remember(db, job.key, at=job.created_at, source="agent")
        return True
    return False


def change(db: Database, key: str, *, now: float, source: str, **changes: Any) -> Job:
    """Change a job and write its history: the one function that does."""
    assignments = ", ".join(f"{name} = ?" for name in changes)
    before = get(db, key)
    db.execute(
        f"UPDATE jobs SET {assignments} WHERE key = ?",  # noqa: S608
        [*(_to_column(value) for value in changes.values()), key],
    )
    after = get(db, key)
    if (before.phase, before.state, before.reason) != (after.phase, after.state, after.reason):
        _remember(db, key, at=now, source=source)
    return after


def get(db: Database, key: str) -> Job:
    """Return a job by its key. Raises KeyError when there is none."""
    row = db.execute(f"{_SELECT} WHERE key = ?", [key]).fetchone()
    if row is None:
        raise KeyError(key)
    return _job(row)


def find(db: Database, key: str) -> Job | None:
    """Return a job by its key, or None."""
    row = db.execute(f"{_SELECT} WHERE key = ?", [key]).fetchone()
    return _job(row) if row else None


def of_run(db: Database, run_id: str) -> Job | None:
    """Return the job of a run's newest attempt."""
    row = db.execute(
        f"{_SELECT} WHERE run_id = ? ORDER BY attempt DESC, created_at DESC LIMIT 1", [run_id]
    ).fetchone()
    return _job(row) if row else None


def of_array(db: Database, array_key: str) -> list[Job]:
    """Return the jobs that are tasks of an array, in the order of their indices."""
    rows = db.execute(f"{_SELECT} WHERE array_key = ? ORDER BY array_index", [array_key])
    return [_job(row) for row in rows]


def to_submit(db: Database, now: float, limit: int = 100) -> list[Job]:
    """Return intents that are due and like no other, oldest first; see ``arrays`` for the rest."""
    rows = db.execute(
        f"{_SELECT} WHERE phase = ? AND not_before <= ? AND pack_key IS NULL "
        "AND likeness IS NULL ORDER BY created_at, rowid LIMIT ?",
        [Phase.INTENT.value, now, limit],
    )
    return [_job(row) for row in rows]


def next_due(db: Database, now: float) -> float | None:
    """Return when the next intent is due that is not due yet."""
    row = db.execute(
        "SELECT min(not_before) FROM jobs WHERE phase = ? AND not_before > ?",
        [Phase.INTENT.value, now],
    ).fetchone()
    return None if row[0] is None else float(row[0])


def in_phase(db: Database, *phases: Phase) -> list[Job]:
    """Return the jobs that are in one of these phases."""
    return list(each_in_phase(db, *phases))


def each_in_phase(db: Database, *phases: Phase) -> Iterator[Job]:
    """Yield the jobs that are in one of these phases, for a reader who does not keep them."""
    marks = ", ".join("?" * len(phases))
    rows = db.execute(
        f"{_SELECT} WHERE phase IN ({marks}) ORDER BY created_at, rowid",
        [phase.value for phase in phases],
    )
    for row in rows:
        yield _job(row)


def with_keys(db: Database, keys: Sequence[str]) -> list[Job]:
    """Return these jobs, oldest first."""
    marks = ", ".join("?" * len(keys))
    rows = db.execute(f"{_SELECT} WHERE key IN ({marks}) ORDER BY created_at, rowid", list(keys))
    return [_job(row) for row in rows]


def live_workers(
    db: Database, *, after: str = "", up_to: str | None = None, limit: int
) -> list[Job]:
    """Return run workers that the scheduler has and nobody has asked to end, by run id."""
    rows = db.execute(
        f"{_SELECT} WHERE kind = ? AND phase IN (?, ?) AND terminate_at IS NULL "
        "AND run_id > ? AND (? IS NULL OR run_id <= ?) ORDER BY run_id LIMIT ?",
        [
            JobKind.RUN_WORKER.value,
            Phase.QUEUED.value,
            Phase.RUNNING.value,
            after,
            up_to,
            up_to,
            limit,
        ],
    )
    return [_job(row) for row in rows]


def packs(db: Database) -> list[Job]:
    """Return the packs that take servers or may still, oldest first."""
    final = [phase.value for phase in Phase if phase.is_final]
    marks = ", ".join("?" * len(final))
    rows = db.execute(
        f"{_SELECT} WHERE kind = ? AND terminate_at IS NULL AND phase NOT IN ({marks}) "
        "ORDER BY created_at, rowid",
        [JobKind.PACK.value, *final],
    )
    return [_job(row) for row in rows]


def in_pack(db: Database, pack_key: str) -> list[Job]:
    """Return the jobs in a pack that are not over."""
    final = [phase.value for phase in Phase if phase.is_final]
    marks = ", ".join("?" * len(final))
    rows = db.execute(
        f"{_SELECT} WHERE pack_key = ? AND phase NOT IN ({marks}) ORDER BY created_at, rowid",
        [pack_key, *final],
    )
    return [_job(row) for row in rows]


def to_cancel(db: Database, now: float) -> list[Job]:
    """Return submitted jobs that were asked to end, and whose time to do so is over."""
    rows = db.execute(
        f"{_SELECT} WHERE {_OPEN} AND terminate_at IS NOT NULL AND cancelled_at IS NULL "
        "AND (job_id IS NOT NULL OR pack_key IS NOT NULL) "
        "AND (terminate_at <= ? OR phase NOT IN (?, ?))",
        [now, Phase.QUEUED.value, Phase.RUNNING.value],
    )
    return [_job(row) for row in rows]


def to_conclude(db: Database) -> list[Job]:
    """Return the jobs that are over, and of which the control plane has not been told."""
    final = [phase.value for phase in Phase if phase.is_final]
    marks = ", ".join("?" * len(final))
    rows = db.execute(f"{_SELECT} WHERE {_OPEN} AND phase IN ({marks}) ORDER BY ended_at", final)
    return [_job(row) for row in rows]


def to_measure(db: Database, *, since: float, limit: int = 1000) -> list[Job]:
    """Return run workers that have ended since then and whose use of resources is not told yet."""
    rows = db.execute(
        f"{_SELECT} WHERE measured_at IS NULL AND kind = ? AND phase = ? "
        "AND started_at IS NOT NULL AND ended_at >= ? ORDER BY ended_at LIMIT ?",
        [JobKind.RUN_WORKER.value, Phase.ENDED.value, since, limit],
    )
    return [_job(row) for row in rows]


def recent(db: Database, *, limit: int, include_concluded: bool) -> list[Job]:
    """Return jobs for people to read, newest first."""
    where = "1" if include_concluded else _OPEN
    rows = db.execute(f"{_SELECT} WHERE {where} ORDER BY created_at DESC LIMIT ?", [limit])
    return [_job(row) for row in rows]


def history(db: Database, key: str) -> list[HistoryEntry]:
    """Return what happened to a job, oldest first."""
    rows = db.execute(
        "SELECT at, phase, state, reason, source FROM job_states WHERE key = ? ORDER BY id", [key]
    )
    return [HistoryEntry(*row) for row in rows]


def count_by_phase(db: Database) -> dict[Phase, int]:
    """Return how many jobs that are not concluded are in each phase."""
    rows = db.execute(f"SELECT phase, count(*) FROM jobs WHERE {_OPEN} GROUP BY phase")  # noqa: S608
    return {Phase(phase): count for phase, count in rows}


def purge(db: Database, now: float) -> list[str]:
    """Forget jobs that were concluded long ago; return their keys, and those of their arrays.

    An array is forgotten with the last of its jobs.
    """
    rows = db.execute(
        "SELECT key, array_key FROM jobs WHERE concluded_at < ?", [now - KEEP_CONCLUDED_SECONDS]
    ).fetchall()
    for key, _ in rows:
        db.execute("DELETE FROM jobs WHERE key = ?", [key])
    arrays = {array_key for _, array_key in rows if array_key is not None}
    db.execute(
        "DELETE FROM launches WHERE run_id NOT IN (SELECT run_id FROM jobs WHERE run_id > '')"
    )
    return [*(key for key, _ in rows), *(key for key in arrays if not of_array(db, key))]


def _remember(db: Database, key: str, *, at: float, source: str) -> None:
    db.execute(
        "INSERT INTO job_states (key, at, phase, state, reason, source) "
        "SELECT key, ?, phase, state, reason, ? FROM jobs WHERE key = ?",
        [at, source, key],
    )


def _job(row: tuple[Any, ...]) -> Job:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["kind"] = JobKind(values["kind"])
    values["phase"] = Phase(values["phase"])
    values["state"] = JobState(values["state"])
    values["placement"] = Placement(values["placement"])
    return Job(**values)


def _to_column(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
