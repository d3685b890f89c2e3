"""Whether an allocation has the time for what waits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.config.pools import Pool
from hpc_agent.store import launches
from hpc_agent.store.workers import Worker

MAX_RUNTIME_TAG = "dagster/max_runtime"  # dagster/_core/storage/tags.py
_MARGIN_SECONDS = 15.0
# From Slurm's start of an allocation until its supervisor takes work: a part of its time at most.
_START_SECONDS, _START_PART = 60.0, 20


@dataclass(frozen=True, slots=True)
class Fit:
    """One allocation of a pool, as it stands at ``now``."""

    pool: Pool
    allocation: Worker
    now: float

    @property
    def left(self) -> float:
        """The seconds that are left of its time limit; infinite as long as that is not known."""
        deadline = self.allocation.deadline_at
        return math.inf if deadline is None else deadline - self.now

    def has_time_for(self, db: Database, worker: Worker) -> bool:
        """Whether a run or step can end before the allocation does, as far as that is known."""
        return self.has_time(seconds_needed(db, self.pool, worker))

    def has_time(self, needed: float | None) -> bool:
        """Whether what takes so many seconds at most, or nobody knows how many, can end in it."""
        if needed is None:
            needed = min(self.pool.handover_seconds, _known_total(self.allocation) / 2)
        return self.left > needed + _MARGIN_SECONDS


def fits_a_fresh_one(needed: float, total: float) -> bool:
    """Whether what takes so many seconds fits into an allocation of ``total`` that has just begun.

    Or else allocations would come and go for it, each a moment too old.
    """
    start = min(_START_SECONDS, total / _START_PART)
    return needed + start + _MARGIN_SECONDS < total


def seconds_needed(db: Database, pool: Pool, worker: Worker) -> float | None:
    """Return how long a run or step may take at most, None when nobody says."""
    known = [] if pool.slot.seconds is None else [pool.slot.seconds]
    if worker.step is None and worker.run_id is not None:
        launch = launches.find(db, worker.run_id)
        tag = launch.tags.get(MAX_RUNTIME_TAG, "") if launch is not None else ""
        if tag.strip().isdigit():
            known.append(float(tag))
    return min(known, default=None)


def _known_total(allocation: Worker) -> float:
    if allocation.deadline_at is None or allocation.started_at is None:
        return math.inf
    return allocation.deadline_at - allocation.started_at
