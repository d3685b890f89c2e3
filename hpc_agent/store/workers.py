"""Workers: what the agent wants running, each with the job that counts, and their history."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from hpc_agent.journal.about import Fields
from hpc_agent.slurm.state import JobState
from hpc_agent.store import jobs, launches, rows
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import LIVE, Phase, TransitionError, move

KEEP_CONCLUDED_SECONDS = 30 * 24 * 3600.0


class WorkerKind(enum.Enum):
    """What a worker is."""

    RUN_WORKER = "run_worker"
    CODE_SERVER = "code_server"
    PACK = "pack"
    STEP = "step"
    POOL = "pool"

    @property
    def is_host(self) -> bool:
        """Whether others live in its job."""
        return self in {WorkerKind.PACK, WorkerKind.POOL}

    @property
    def is_of_run(self) -> bool:
        """Whether it does work of a run: that begins only after the agent knows of its claim."""
        return self in {WorkerKind.RUN_WORKER, WorkerKind.STEP}


class Placement(enum.Enum):
    """Where a worker's processes live.

    PACKED: in a job that code servers share, their pack. POOL: in an allocation of a pool, or not
    assigned to one yet.
    """

    JOB = "job"
    LOGIN = "login"
    PACKED = "packed"
    POOL = "pool"

    @property
    def is_shared(self) -> bool:
        """Whether its processes live in the job of another worker."""
        return self in {Placement.PACKED, Placement.POOL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker; times are seconds since the epoch.

    ``job_name`` is Dagster's: the job that the run executes. ``request_id`` is the request that
    waits for its submission. ``waits_for`` says why it is not submitted, or not known to be.
    ``terminate_at`` is when a worker that was asked to end is ended by scancel. ``placement`` and
    ``pack_key`` say where its processes live; ``pack_options`` are the options that the servers of
    a pack share. ``pool`` is the pool of an allocation, or in which a worker is to run; then
    ``pack_key`` and ``pool_node`` say in which allocation, and on which of its nodes.
    ``is_leaving``: nothing more comes into its job. ``made_of`` is a digest of what an allocation
    was started with. ``attempt`` counts a run's workers from 1;
    ``overrides`` are the Slurm options (JSON) in which an attempt differs from the first.
    ``measured_at`` is when its use of resources was told. Workers of one ``likeness`` may be tasks
    of one job array; ``array_key`` and ``array_index`` say which task one is, from before sbatch is
    called. ``settings`` are the Slurm options it is submitted with, each with its source (JSON).
    ``outcome`` is how it ended.
    ``step`` is the name under which a run has asked for a step's job, and ``step_attempt`` counts,
    from 0, what Dagster repeats of it; ``attempt`` what the agent repeats.

    ``job`` is the job that counts: the one that holds the claim (``is_claimed``), or as long as
    none is known to, the one that is furthest.
    """

    key: str
    kind: WorkerKind
    phase: Phase
    deployment: str
    location: str | None
    run_id: str | None = None
    job_name: str | None = None
    step: str | None = None
    step_attempt: int = 0
    request_id: str | None = None
    created_at: float
    submitting_since: float | None = None
    not_before: float = 0.0
    waits_for: str = ""
    placement: Placement = Placement.JOB
    pack_key: str | None = None
    pack_options: str = ""
    pool: str | None = None
    pool_node: int | None = None
    is_leaving: bool = False
    made_of: str = ""
    attempt: int = 1
    overrides: str = ""
    settings: str = ""
    likeness: str | None = None
    array_key: str | None = None
    array_index: int | None = None
    is_claimed: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    outcome: JobState | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    cpu_seconds: float | None = None
    max_rss_kb: int | None = None
    terminate_at: float | None = None
    concluded_at: float | None = None
    measured_at: float | None = None
    job: Job | None = None

    @property
    def job_id(self) -> str | None:
        """The scheduler's id of the job that counts."""
        return self.job.job_id if self.job else None

    @property
    def own_job_id(self) -> str | None:
        """The scheduler's id of a job that is its alone; whoever lives in another's has none."""
        return None if self.placement.is_shared else self.job_id

    @property
    def state(self) -> JobState:
        """How it ended, or what the scheduler says of its job."""
        if self.outcome is not None:
            return self.outcome
        return self.job.state if self.job else JobState.UNKNOWN

    @property
    def reason(self) -> str:
        """Why it waits: to be submitted, or in the scheduler's queue."""
        if self.job is None or not self.phase.is_submitted:
            return self.waits_for
        return self.job.reason

    @property
    def nodes(self) -> str:
        """Where its job runs or ran."""
        return self.job.nodes if self.job else ""

    @property
    def submitted_at(self) -> float | None:
        """When its job became known; a pack's is older than the servers that come in later."""
        return max(self.job.submitted_at, self.created_at) if self.job else None

    @property
    def deadline_at(self) -> float | None:
        """When its job's time limit ends it."""
        return self.job.deadline_at if self.job else None

    @property
    def restart_count(self) -> int:
        """How often Slurm has requeued its job."""
        return self.job.restart_count if self.job else 0

    @property
    def log_fields(self) -> Fields:
        """What lines of the log about it carry."""
        return {
            "run_id": self.run_id,
            "job_id": self.job_id,
            "key": self.key,
            "location": self.location,
            "deployment": self.deployment,
        }

    @property
    def is_waiting(self) -> bool:
        """Whether it is in Slurm's queue and has not started."""
        return self.phase is Phase.QUEUED and self.job is not None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change in a worker's life; ``source`` says who saw it."""

    at: float
    phase: str
    state: str
    reason: str
    source: str


_COLUMNS = rows.columns_of(Worker, without=frozenset({"job"}))
_WIDTH = len(_COLUMNS)
_BOTH = ", ".join([*(f"w.{name}" for name in _COLUMNS), *(f"j.{name}" for name in jobs.COLUMNS)])
_SELECT = (
    f"SELECT {_BOTH} FROM workers AS w "  # noqa: S608 - our own column names
    "LEFT JOIN jobs AS j ON j.id = w.current_job"
)
_OPEN = "w.concluded_at IS NULL"
# No step, or one whose run is forgotten, and that shares its directory with no job that goes on.
_ALONE = (
    "(w.step IS NULL OR NOT EXISTS (SELECT 1 FROM launches WHERE run_id = w.run_id) AND NOT EXISTS "
    "(SELECT 1 FROM workers AS o WHERE o.run_id = w.run_id AND o.concluded_at IS NULL))"
)


def insert(db: Database, worker: Worker) -> bool:
    """Add an intent; False when there is a worker with this key already.

    Every life begins with INTENT; ``change`` goes on from there. Raises TransitionError.
    """
    if worker.phase is not Phase.INTENT:
        raise TransitionError(f"worker {worker.key}: no life begins with {worker.phase.value}")
    values = {name: getattr(worker, name) for name in _COLUMNS}
    if rows.insert(db, "workers", values, or_ignore=True).rowcount != 1:
        return False
    _remember(db, worker, at=worker.created_at, source="agent")
    return True


def change(
    db: Database, key: str, *, now: float, source: str, phase: Phase | None = None, **changes: Any
) -> Worker:
    """Change a worker and write its history."""
    before = get(db, key)
    return change_from(db, before, now=now, source=source, phase=phase, **changes)


def change_from(
    db: Database,
    before: Worker,
    *,
    now: float,
    source: str,
    phase: Phase | None = None,
    **changes: Any,
) -> Worker:
    """Do so for a worker as it was before its job was changed: the one function that does."""
    key = before.key
    if phase is not None:
        move(db, key, phase)
    rows.update(db, "workers", "key", key, changes)
    return note(db, before, now=now, source=source)


def note(db: Database, before: Worker, *, now: float, source: str) -> Worker:
    """Return a worker as it has become, after its history is written."""
    after = get(db, before.key)
    if _shown(before) != _shown(after):
        _remember(db, after, at=now, source=source)
    return after


def _shown(worker: Worker) -> tuple[object, ...]:
    """What its history has a line for; a step may be begun again until it is concluded."""
    is_decided = worker.step is not None and worker.concluded_at is not None
    return worker.phase, worker.state, worker.reason, is_decided


def set_current(db: Database, key: str, job: Job, *, is_claimed: bool) -> None:
    """Let a job be the one that counts."""
    changes = {"current_job": job.id, "is_claimed": is_claimed}
    rows.update(db, "workers", "key", key, changes)


def share_job(db: Database, key: str, job: Job | None) -> None:
    """Let a worker have the job of the pack or allocation that it lives in; None: of none."""
    db.execute("UPDATE workers SET current_job = ? WHERE key = ?", [job.id if job else None, key])


def get(db: Database, key: str) -> Worker:
    """Return a worker by its key. Raises KeyError when there is none."""
    worker = find(db, key)
    if worker is None:
        raise KeyError(key)
    return worker


def find(db: Database, key: str) -> Worker | None:
    """Return a worker by its key, or None."""
    row = db.execute(f"{_SELECT} WHERE w.key = ?", [key]).fetchone()
    return _worker(row) if row else None


def of_run(db: Database, run_id: str) -> Worker | None:
    """Return the run worker of a run's newest attempt."""
    return next(
        select(
            db,
            "w.run_id = ? AND w.kind = ? ORDER BY w.attempt DESC, w.created_at DESC LIMIT 1",
            [run_id, WorkerKind.RUN_WORKER],
        ),
        None,
    )


def attempts_of(db: Database, worker: Worker) -> list[Worker]:
    """Return the attempts of what a worker does, the first one first."""
    where = "w.run_id = ? AND w.kind = ? AND w.step IS ? AND w.step_attempt = ? ORDER BY w.attempt"
    values = [worker.run_id, worker.kind, worker.step, worker.step_attempt]
    return list(select(db, where, values))


def of_array(db: Database, array_key: str) -> list[Worker]:
    """Return the workers that are tasks of an array, in the order of their indices."""
    return list(select(db, "w.array_key = ? ORDER BY w.array_index", [array_key]))


def task(db: Database, array_key: str, index: int) -> Worker | None:
    """Return the worker that is this task of an array."""
    found = select(db, "w.array_key = ? AND w.array_index = ?", [array_key, index])
    return next(found, None)


def with_keys(db: Database, keys: Sequence[str]) -> list[Worker]:
    """Return these workers, oldest first."""
    marks = ", ".join("?" * len(keys))
    return list(select(db, f"w.key IN ({marks}) ORDER BY w.created_at, w.rowid", keys))


def in_phase(db: Database, *phases: Phase) -> list[Worker]:
    """Return the workers that are in one of these phases and not concluded."""
    return list(select(db, f"{_OPEN} AND w.phase IN ({_marks(phases)}) ORDER BY w.rowid", phases))


def rows_in_phase(db: Database, *phases: Phase) -> list[int]:
    """Return the numbers of the rows of these workers, to be read some at a time."""
    found = db.execute(
        f"SELECT rowid FROM workers AS w WHERE {_OPEN} AND phase IN ({_marks(phases)})",  # noqa: S608
        [phase.value for phase in phases],
    )
    return [row for (row,) in found]


def with_rows(db: Database, numbers: Sequence[int]) -> list[Worker]:
    """Return the workers in these rows that are there still."""
    return list(select(db, f"w.rowid IN ({', '.join('?' * len(numbers))})", numbers))


def lost_since(db: Database, since: float) -> list[Worker]:
    """Return run workers that were lost and are not concluded, or were so since then."""
    where = "AND w.phase = ? AND w.kind = ?"
    values = [Phase.LOST, WorkerKind.RUN_WORKER]
    return [
        *select(db, f"{_OPEN} {where}", values),
        *select(db, f"w.concluded_at >= ? {where}", [since, *values]),
    ]


def packs(db: Database) -> list[Worker]:
    """Return the packs that take servers or may still, oldest first."""
    return list(
        select(
            db,
            f"{_OPEN} AND w.kind = ? AND w.terminate_at IS NULL AND w.phase IN ({_marks(LIVE)}) "
            "ORDER BY w.created_at, w.rowid",
            [WorkerKind.PACK, *LIVE],
        )
    )


def in_pack(db: Database, pack_key: str) -> list[Worker]:
    """Return the workers in a pack, or in an allocation of a pool, that are not over."""
    return list(
        select(
            db,
            f"{_OPEN} AND w.pack_key = ? AND w.phase IN ({_marks(LIVE)}) ORDER BY w.rowid",
            [pack_key, *LIVE],
        )
    )


def to_measure(db: Database, *, since: float, limit: int = 400) -> list[Worker]:
    """Return the workers of runs that ended since then, whose use of resources is not told yet."""
    return list(
        select(
            db,
            "w.measured_at IS NULL AND w.ended_at >= ? AND w.kind IN (?, ?) AND w.phase = ? "
            "AND w.started_at IS NOT NULL ORDER BY w.ended_at LIMIT ?",
            [since, WorkerKind.RUN_WORKER, WorkerKind.STEP, Phase.ENDED, limit],
        )
    )


def named(db: Database, name: str) -> Worker | None:
    """Return the newest worker with this key, job id, run id, or code location."""
    return next(
        select(
            db,
            "w.key = ? OR (w.kind = ? AND w.run_id = ?) OR (w.kind = ? AND w.location = ?) "
            "OR w.key IN (SELECT worker_key FROM jobs WHERE job_id = ?) "
            "ORDER BY w.created_at DESC LIMIT 1",
            [name, WorkerKind.RUN_WORKER, name, WorkerKind.CODE_SERVER, name, name],
        ),
        None,
    )


def history(db: Database, key: str) -> list[HistoryEntry]:
    """Return what happened to a worker, oldest first."""
    found = db.execute(
        "SELECT at, phase, state, reason, source FROM worker_history WHERE key = ? ORDER BY id",
        [key],
    )
    return [HistoryEntry(*row) for row in found]


def count_by_phase(db: Database) -> dict[Phase, int]:
    """Return how many workers that are not concluded are in each phase."""
    found = db.execute(f"SELECT phase, count(*) FROM workers AS w WHERE {_OPEN} GROUP BY phase")  # noqa: S608
    return {Phase(phase): count for phase, count in found}


def count_open(db: Database, kind: WorkerKind) -> int:
    """Return how many workers of a kind are not concluded."""
    found = db.execute(
        f"SELECT count(*) FROM workers AS w WHERE {_OPEN} AND kind = ?",  # noqa: S608
        [kind.value],
    )
    return int(found.fetchone()[0])


def count_forgettable(db: Database, before: float) -> int:
    """Return how many workers ``purge`` forgets until it has no more to forget."""
    found = db.execute(
        "SELECT count(*) FROM workers WHERE concluded_at < ? AND (step IS NULL OR run_id NOT IN "
        "(SELECT run_id FROM workers WHERE run_id IS NOT NULL AND (concluded_at IS NULL OR "
        "(concluded_at >= ? AND step IS NULL))))",
        [before, before],
    )
    return int(found.fetchone()[0])


def keys(db: Database) -> set[str]:
    """Return the keys of all workers, and those of their arrays."""
    found = db.execute(
        "SELECT key FROM workers UNION SELECT array_key FROM workers WHERE array_key IS NOT NULL"
    )
    return {key for (key,) in found}


def purge(db: Database, before: float, limit: int = 100) -> list[str]:
    """Forget some workers concluded before then; return their keys, and those of their arrays.

    An array is forgotten with the last of its workers, and so is what launched a run. The steps of
    a run go after it: as long as it may ask for one, it is told of what has been done.
    """
    found = db.execute(
        "SELECT key, array_key, run_id, step FROM workers AS w "  # noqa: S608 - our own words
        f"WHERE concluded_at < ? AND {_ALONE} LIMIT ?",
        [before, limit],
    ).fetchall()
    for key, *_ in found:
        db.execute("DELETE FROM workers WHERE key = ?", [key])
    for run_id in {run_id for *_, run_id, step in found if run_id is not None and step is None}:
        if of_run(db, run_id) is None:
            launches.forget(db, run_id)
    arrays = {array_key for _, array_key, *_ in found if array_key is not None}
    return [*(key for key, *_ in found), *(key for key in arrays if not of_array(db, key))]


def select(db: Database, where: str, values: Iterable[Any]) -> Iterator[Worker]:
    """Yield the workers that a condition on w(orkers) and j(obs) holds for."""
    found = db.execute(f"{_SELECT} WHERE {where}", [rows.to_column(value) for value in values])
    for row in found:
        yield _worker(row)


def _marks(phases: Iterable[Phase]) -> str:
    return ", ".join("?" for _ in phases)


def _remember(db: Database, worker: Worker, *, at: float, source: str) -> None:
    values = {
        "key": worker.key,
        "at": at,
        "phase": worker.phase,
        "state": worker.state,
        "reason": worker.reason,
        "source": source,
    }
    rows.insert(db, "worker_history", values)


def _worker(row: Sequence[Any]) -> Worker:
    values = dict(zip(_COLUMNS, row, strict=False))
    values["kind"] = WorkerKind(values["kind"])
    values["phase"] = Phase(values["phase"])
    values["placement"] = Placement(values["placement"])
    values["is_claimed"] = bool(values["is_claimed"])
    values["is_leaving"] = bool(values["is_leaving"])
    values["outcome"] = None if values["outcome"] is None else JobState(values["outcome"])
    if row[_WIDTH] is not None:
        values["job"] = jobs.job_of(row[_WIDTH:])
    return Worker(**values)
