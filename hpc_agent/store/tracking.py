"""What the loops ask of all live jobs at once: cheap with ten thousand of them.

Reading all columns of all of them at each look would cost more than all the rest of an idle agent.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.journal.about import Fields
from hpc_agent.slurm.state import JobState
from hpc_agent.store import jobs, workers
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import FINAL, LIVE, Phase
from hpc_agent.store.workers import Placement, Worker, WorkerKind

# A worker that is over has told its end; its job leaves the queue a moment later.
STRAY_SECONDS = 120.0
_CANCEL_AGAIN_SECONDS = 30.0
# Slurm ends it already, and waits for its node, or for an Epilog that hangs for hours.
_CANCEL_LEAVING_AGAIN_SECONDS = 600.0
_LONGEST_HOLD_SECONDS = 60.0
_LONGEST_DRAIN_SECONDS = 600.0

_FINAL = ", ".join(f"'{phase.value}'" for phase in FINAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """The jobs that the scheduler has, and what decides when to look at them again.

    ``rows`` are their rows by job id, more than one where an id was reused. ``in_packs`` are the
    workers that live in the jobs of others. ``leaving`` are the rows of jobs that are completing.
    ``youngest`` is when the last of the jobs became known. ``change`` is the number of the last
    change that this takes into account, and ``there`` how many jobs are tracked and completing: a
    job may be so and go when its worker is over, and nothing of that changes any more.
    """

    change: tuple[int, int]
    there: tuple[int, int]
    rows: dict[str, tuple[int, ...]]
    in_packs: tuple[str, ...]
    leaving: tuple[int, ...]
    youngest: float
    is_any_waiting: bool

    def __bool__(self) -> bool:
        return bool(self.rows or self.in_packs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToCancel:
    """A job that is to be ended, and why it is."""

    worker: Worker
    job: Job
    is_duplicate: bool


@dataclass(frozen=True, slots=True)
class LiveRun:
    """As much of a run worker as it takes to ask for its run."""

    key: str
    run_id: str
    deployment: str
    phase: Phase

    @property
    def log_fields(self) -> Fields:
        """What lines of the log about it carry."""
        return {"key": self.key, "run_id": self.run_id, "deployment": self.deployment}


def last_change(db: Database) -> tuple[int, int]:
    """Return the numbers of the last change of a worker and of the last job that became known."""
    row = db.execute(
        "SELECT (SELECT coalesce(max(id), 0) FROM worker_history), "
        "(SELECT coalesce(max(id), 0) FROM jobs)"
    ).fetchone()
    return int(row[0]), int(row[1])


def changed_since(db: Database, change: tuple[int, int]) -> set[str]:
    """Return the keys of the workers that have changed since, as ``last_change`` counts."""
    found = db.execute(
        "SELECT key FROM worker_history WHERE id > ? "
        "UNION SELECT worker_key FROM jobs WHERE id > ?",
        list(change),
    )
    return {key for (key,) in found}


def tracked(db: Database, known: Tracked | None) -> Tracked:
    """Return the jobs that the scheduler has; ``known`` itself when nothing has changed since."""
    change = last_change(db)
    live = "FROM jobs INDEXED BY jobs_tracked WHERE NOT is_over"
    number, completing = db.execute(
        f"SELECT count(*), coalesce(sum(state = ?), 0) {live}", [JobState.COMPLETING.value]
    ).fetchone()
    there = (int(number), int(completing))
    if known is not None and (known.change, known.there) == (change, there):
        return known
    by_id: dict[str, tuple[int, ...]] = {}
    for job_id, identity in db.execute(f"SELECT job_id, id {live}"):
        by_id[job_id] = (*by_id.get(job_id, ()), identity)
    leaving = db.execute(f"SELECT id {live} AND state = ?", [JobState.COMPLETING.value])
    youngest, is_any_waiting = db.execute(
        f"SELECT max(submitted_at), max(started_at IS NULL) {live}"
    ).fetchone()
    packed = db.execute(
        "SELECT key FROM workers "
        "WHERE pack_key IS NOT NULL AND concluded_at IS NULL AND phase = ? ORDER BY rowid",
        [Phase.RUNNING.value],
    )
    return Tracked(
        change=change,
        there=there,
        rows=by_id,
        in_packs=tuple(key for (key,) in packed),
        leaving=tuple(identity for (identity,) in leaving),
        youngest=youngest or 0.0,
        is_any_waiting=bool(is_any_waiting),
    )


def to_cancel(db: Database, now: float) -> list[ToCancel]:
    """Return the jobs that must end: of workers asked to, of workers that are over, duplicates.

    One that scancel has not ended is cancelled again after a while, a longer one where it is
    completing.
    """
    found = db.execute(
        "SELECT j.id, w.key, w.is_claimed AND w.current_job != j.id FROM jobs AS j "  # noqa: S608
        "JOIN workers AS w ON w.key = j.worker_key WHERE NOT j.is_over "
        "AND (j.cancelled_at IS NULL OR j.cancelled_at <= CASE j.state WHEN ? THEN ? ELSE ? END) "
        "AND ("
        f"(w.terminate_at IS NOT NULL AND (w.terminate_at <= ? OR w.phase IN ({_FINAL}))) "
        f"OR (w.phase IN ({_FINAL}) AND w.ended_at <= ?) "
        "OR (w.is_claimed AND w.current_job != j.id))",
        [
            JobState.COMPLETING.value,
            now - _CANCEL_LEAVING_AGAIN_SECONDS,
            now - _CANCEL_AGAIN_SECONDS,
            now,
            now - STRAY_SECONDS,
        ],
    ).fetchall()
    return [
        ToCancel(worker=workers.get(db, key), job=jobs.get(db, identity), is_duplicate=bool(other))
        for identity, key, other in found
    ]


def orders_to_withdraw(db: Database, now: float) -> list[Worker]:
    """Return the workers in packs that were asked to end, and whose time to do so is over."""
    found = db.execute(
        "SELECT key FROM workers WHERE pack_key IS NOT NULL AND terminate_at IS NOT NULL "
        "AND concluded_at IS NULL AND terminate_at <= ? AND placement = ?",
        [now, Placement.PACKED.value],
    ).fetchall()
    return [workers.get(db, key) for (key,) in found]


def bound_waits(db: Database, now: float) -> None:
    """Let no wait be longer than it can be, at a start: the clock may have been set back."""
    db.execute(
        "UPDATE workers SET not_before = min(not_before, ?), "
        "submitting_since = min(submitting_since, ?), terminate_at = min(terminate_at, ?) "
        "WHERE concluded_at IS NULL",
        [now + _LONGEST_HOLD_SECONDS, now, now + _LONGEST_DRAIN_SECONDS],
    )


def next_deadline(db: Database, now: float) -> float | None:
    """Return when the next live worker that was asked to end is to be ended."""
    row = db.execute(
        "SELECT min(terminate_at) FROM workers WHERE terminate_at IS NOT NULL "  # noqa: S608
        f"AND concluded_at IS NULL AND terminate_at > ? AND phase NOT IN ({_FINAL})",
        [now],
    ).fetchone()
    return None if row[0] is None else float(row[0])


def runs_to_ask_for(db: Database, after: str, limit: int) -> list[LiveRun]:
    """Return live run workers that nobody has asked to end, by run id, round and round."""
    following = _live_runs(db, after=after, limit=limit)
    left = limit - len(following)
    return following + (_live_runs(db, up_to=after, limit=left) if left and after else [])


def _live_runs(
    db: Database, *, after: str = "", up_to: str | None = None, limit: int
) -> list[LiveRun]:
    live = ", ".join(f"'{phase.value}'" for phase in LIVE)
    found = db.execute(
        # The pluses keep SQLite to the index by run id: it would sort all live workers otherwise.
        "SELECT key, run_id, deployment, phase FROM workers WHERE concluded_at IS NULL "  # noqa: S608
        f"AND +kind = ? AND +phase IN ({live}) AND +terminate_at IS NULL "
        "AND run_id > ? AND (? IS NULL OR run_id <= ?) ORDER BY run_id LIMIT ?",
        [WorkerKind.RUN_WORKER.value, after, up_to, up_to, limit],
    )
    return [
        LiveRun(key, run_id, deployment, Phase(phase)) for key, run_id, deployment, phase in found
    ]
