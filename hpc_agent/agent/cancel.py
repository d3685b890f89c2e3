"""The cancel loop: whatever must end and is not gone by its time is ended by scancel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.isolation import for_each
from hpc_agent.slurm.scheduler import array_id
from hpc_agent.store import jobs, tracking
from hpc_agent.store.tracking import ToCancel
from hpc_agent.store.workers import Worker

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_SHORTEST_SECONDS = 0.2
_WHILE_SOME_END_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Order:
    """One call of scancel: ids with the names that they must have, and the jobs that it ends.

    An array of which all jobs that are left must end is one id; of steps, those of a run are many.
    """

    names: Mapping[str, str]
    jobs: Sequence[ToCancel]

    def __str__(self) -> str:
        """Return the first of the ids."""
        return next(iter(self.names))


class CancelLoop:
    """Ends jobs, again and again until they are gone.

    These are the jobs of workers that were asked to end, those that a worker has left behind, and
    duplicates of the job that holds a worker's claim. A job is ended by id and name together: an id
    that was reused never hits a stranger.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def step(self) -> float:
        """Cancel what is due; return the time to the next deadline."""
        context = self._context
        now = context.clock()
        due = await context.store.run(lambda db: _orders(db, tracking.to_cancel(db, now)))
        failed = await for_each(
            "scancel",
            due,
            self._end,
            name=str,
            fields=lambda each: each.jobs[0].worker.log_fields,
        )
        if len(due) > len(failed):
            context.bells.watch.ring()
        orders = await context.store.run(lambda db: tracking.orders_to_withdraw(db, now))
        await for_each(
            "withdraw from pack",
            orders,
            self._withdraw,
            name=lambda each: each.key,
            fields=lambda each: each.log_fields,
        )
        return await self._next_wait(now, is_any_ending=bool(due or orders))

    async def _end(self, order: _Order) -> None:
        context = self._context
        if len(order.names) == 1:
            ((job_id, name),) = order.names.items()
            await context.scheduler.cancel(job_id, name=name)
        else:
            await context.scheduler.cancel_all(order.names)
        now = context.clock()

        def write(db: Database) -> None:
            for each in order.jobs:
                jobs.change(db, each.job.id, cancelled_at=now)

        await context.store.run(write)
        first, others = order.jobs[0], len(order.jobs) - 1
        name = f"{first.worker.key} and {others} others" if others else first.worker.key
        why = "a duplicate" if first.is_duplicate else "no longer wanted"
        log.info("%s: job %s is %s and was cancelled", name, order, why)

    async def _withdraw(self, worker: Worker) -> None:
        """One in a pack ends by itself when its order is taken back; its neighbours go on."""
        work, pack_key = self._context.preparation.work, str(worker.pack_key)
        await asyncio.to_thread(work.withdraw_order, pack_key, worker.key)

    async def _next_wait(self, now: float, *, is_any_ending: bool) -> float:
        deadline = await self._context.store.run(lambda db: tracking.next_deadline(db, now))
        wait = _IDLE_SECONDS if deadline is None else deadline - now
        longest = _WHILE_SOME_END_SECONDS if is_any_ending else _IDLE_SECONDS
        return min(max(wait, _SHORTEST_SECONDS), longest)


def _orders(db: Database, due: Sequence[ToCancel]) -> list[_Order]:
    arrays: dict[str, list[ToCancel]] = {}
    singles, orders = [], []
    for each in due:
        key = each.worker.array_key
        if key is None or each.is_duplicate:
            singles.append(each)
        else:
            arrays.setdefault(key, []).append(each)
    for key, some in arrays.items():
        bases = {array_id(each.job.job_id) for each in some}
        live = sum(not job.is_over for job in jobs.of_array(db, key))
        if len(some) == live > 1 and len(bases) == 1:
            orders.append(_Order({bases.pop(): f"hpc-agent:{key}"}, some))
        else:
            singles += some
    return orders + [_together(some) for some in _of_one_run(singles)]


def _of_one_run(singles: Sequence[ToCancel]) -> list[list[ToCancel]]:
    """Put the steps of each run together; whatever else there is stays by itself."""
    groups: dict[str, list[ToCancel]] = {}
    for each in singles:
        worker = each.worker
        of_run = worker.step is not None and not each.is_duplicate
        groups.setdefault(f"run {worker.run_id}" if of_run else f"job {each.job.id}", []).append(
            each
        )
    return list(groups.values())


def _together(some: Sequence[ToCancel]) -> _Order:
    return _Order({each.job.job_id: _name(each) for each in some}, some)


def _name(each: ToCancel) -> str:
    return each.job.name or f"hpc-agent:{each.worker.array_key or each.worker.key}"
