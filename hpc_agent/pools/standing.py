"""How a pool stands: what waits, its allocations, and why it does not start any, if so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.pools.allocation import Offer
from hpc_agent.pools.desk import Heard
from hpc_agent.pools.fit import Fit, fits_a_fresh_one, seconds_needed
from hpc_agent.pools.sizing import Allocation, Standing
from hpc_agent.store import pools, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker

_PAST_LOOKED_AT = 20
# An allocation of ten minutes is not old from its first one on.
_OLD_FROM_PART = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A pool at one moment; ``unfit`` are those that wait and fit into no allocation, and why.

    ``assigned`` are those that were given to a slot and have not begun, as far as is known.
    """

    standing: Standing
    allocations: Sequence[Worker]
    waiting: Sequence[Worker]
    assigned: Sequence[Worker]
    unfit: dict[str, str]


def look(db: Database, offer: Offer, heard: Callable[[str], Sequence[Heard]], now: float) -> Scene:
    """Read how a pool stands; ``heard`` returns what the supervisors of an allocation say."""
    waiting = pools.waiting(db, offer.name)
    allocations = pools.allocations(db, offer.name)
    failed = _failed_in_a_row(db, offer.name)
    stop = pools.stopped(db, offer.name)
    needed = {each.key: seconds_needed(db, offer.pool, each) for each in waiting}
    unfit = {key: words for key, most in needed.items() if (words := _why_unfit(offer, most))}
    taking = [Fit(offer.pool, each, now) for each in allocations if not each.is_leaving]
    late = [
        key
        for key, most in needed.items()
        if key not in unfit and taking and not any(each.has_time(most) for each in taking)
    ]
    standing = Standing(
        backlog=len(waiting) - len(unfit),
        too_late=len(late),
        allocations=[_as_it_stands(db, offer, each, heard(each.key), now) for each in allocations],
        slots_expected=offer.slots,
        handover_seconds=min(offer.pool.handover_seconds, offer.seconds / _OLD_FROM_PART),
        failed_starts=len(failed),
        last_failure=_why_failed(failed[0]) if failed else "",
        failed_ago=now - (failed[0].ended_at or now) if failed else math.inf,
        stopped=stop.reason if stop is not None else None,
    )
    members = [each for host in allocations for each in workers.in_pack(db, host.key)]
    return Scene(
        standing=standing,
        allocations=allocations,
        waiting=waiting,
        assigned=[each for each in members if not each.is_claimed],
        unfit=unfit,
    )


def _why_unfit(offer: Offer, needed: float | None) -> str:
    if needed is None or fits_a_fresh_one(needed, offer.seconds):
        return ""
    return (
        f"it may take {needed:.0f} s, and the allocations of pool {offer.name} have "
        f"{offer.seconds:.0f} s"
    )


def _as_it_stands(
    db: Database, offer: Offer, worker: Worker, heard: Sequence[Heard], now: float
) -> Allocation:
    idle_since = [each.idle_since for each in heard if each.idle_since is not None]
    is_idle = bool(heard) and len(idle_since) == len(heard)
    return Allocation(
        key=worker.key,
        phase=worker.phase,
        slots=sum(each.slots for each in pools.supervisors(db, worker.key)) or offer.slots,
        busy=len(workers.in_pack(db, worker.key)),
        left=math.inf if worker.deadline_at is None else worker.deadline_at - now,
        idle=now - max(idle_since) if is_idle else 0.0,
        queued=0.0 if worker.phase is Phase.RUNNING else now - worker.created_at,
        is_leaving=worker.is_leaving
        or worker.terminate_at is not None
        or any(each.is_leaving for each in heard),
    )


def _failed_in_a_row(db: Database, name: str) -> list[Worker]:
    """Return the last allocations, as far as all of them failed to start, the newest first."""
    since = pools.failures_count_from(db, name)
    failed = []
    for each in pools.past_allocations(db, name, since=since, limit=_PAST_LOOKED_AT):
        if each.is_claimed or each.terminate_at is not None:
            break
        failed.append(each)
    return failed


def _why_failed(allocation: Worker) -> str:
    words = allocation.message or allocation.reason or f"its job ended: {allocation.state.value}"
    return words.strip().splitlines()[0] if words.strip() else "no reason is known"
