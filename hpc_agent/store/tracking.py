"""What the loops ask of all live jobs at once: cheap with ten thousand of them.

A row of ``jobs`` has some forty columns; reading all of them at each look costs more than all the
rest of an idle agent.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.slurm.state import JobState
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job, Phase

_LIVE = f"phase IN ('{Phase.QUEUED.value}', '{Phase.RUNNING.value}')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """The jobs that the scheduler has, and what decides when to look at them again.

    ``keys`` are their keys by job id, without the jobs that live in others (packs), which are
    ``in_packs``. ``youngest`` is when the last of them was submitted. ``change`` is the number of
    the last change that this takes into account.
    """

    change: int
    keys: dict[str, str]
    in_packs: tuple[str, ...]
    youngest: float
    is_any_waiting: bool
    is_any_leaving: bool

    def __bool__(self) -> bool:
        return bool(self.keys or self.in_packs)


def last_change(db: Database) -> int:
    """Return the number of the last change of any job's phase, state or reason."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM job_states").fetchone()[0])


def tracked(db: Database, known: Tracked | None) -> Tracked:
    """Return the jobs that the scheduler has; ``known`` itself when nothing has changed since."""
    change = last_change(db)
    if known is not None and known.change == change:
        return known
    rows = db.execute(
        "SELECT job_id, key, pack_key IS NOT NULL, submitted_at, phase, state FROM jobs "  # noqa: S608
        f"WHERE {_LIVE} AND job_id IS NOT NULL"
    ).fetchall()
    return Tracked(
        change=change,
        keys={row[0]: row[1] for row in rows if not row[2]},
        in_packs=tuple(row[1] for row in rows if row[2]),
        youngest=max((row[3] or 0.0 for row in rows), default=0.0),
        is_any_waiting=any(row[4] == Phase.QUEUED.value for row in rows),
        is_any_leaving=any(row[5] == JobState.COMPLETING.value for row in rows),
    )


def next_deadline(db: Database) -> float | None:
    """Return when the next live job that was asked to end is to be ended."""
    row = db.execute(
        "SELECT min(terminate_at) FROM jobs "  # noqa: S608
        f"WHERE {_LIVE} AND terminate_at IS NOT NULL AND cancelled_at IS NULL"
    ).fetchone()
    return None if row[0] is None else float(row[0])


def runs_to_ask_for(db: Database, after: str, limit: int) -> list[Job]:
    """Return live run workers that nobody has asked to end, by run id, round and round."""
    following = jobs.live_workers(db, after=after, limit=limit)
    left = limit - len(following)
    return following + (jobs.live_workers(db, up_to=after, limit=left) if left and after else [])
