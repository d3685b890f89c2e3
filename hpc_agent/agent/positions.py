"""The positions loop: where in the queue of its partition a job is that has waited for a while.

One squeue on all users' jobs, every five minutes and only while a job of ours waits: it tells
nothing that a run depends on, so it may be old.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.errors import SchedulerError
from hpc_agent.slurm.queue_position import KnowsPositions, Position
from hpc_agent.store import queue_positions, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.queue_positions import Waiting
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import run_log

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_ASK_AFTER_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 300.0
_JOBS_PER_TRANSACTION = 200


class PositionsLoop:
    """Keeps the positions of waiting jobs; a run's log is told of those that halve."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told: dict[str, int] = {}

    async def step(self) -> float:
        """Look once, when there is anything to look for."""
        context, scheduler = self._context, self._context.scheduler
        if not isinstance(scheduler, KnowsPositions):
            return _ASK_AGAIN_SECONDS
        since = context.clock() - _ASK_AFTER_SECONDS
        waiting = await self._waiting(since)
        self._told = {each.key: self._told[each.key] for each in waiting if each.key in self._told}
        if not waiting:
            return _IDLE_SECONDS
        try:
            found = await scheduler.positions({each.job_id for each in waiting})
        except SchedulerError as error:
            log.info("where %d waiting jobs are in the queue is not known: %s", len(waiting), error)
            return _ASK_AGAIN_SECONDS
        for first in range(0, len(waiting), _JOBS_PER_TRANSACTION):
            await self._note(waiting[first : first + _JOBS_PER_TRANSACTION], found)
        return _ASK_AGAIN_SECONDS

    async def _waiting(self, since: float) -> list[Waiting]:
        store = self._context.store
        rows = await store.run(lambda db: workers.rows_in_phase(db, Phase.QUEUED))
        parts = store.in_parts(rows, partial(queue_positions.waiting, since=since))
        return [each async for some in parts for each in some]

    async def _note(self, waiting: Sequence[Waiting], found: Mapping[str, Position]) -> None:
        moved = [
            (each, found.get(each.job_id))
            for each in waiting
            if each.position != found.get(each.job_id)
        ]
        if not moved:
            return
        news = {each.key for each, position in moved if position and self._is_news(each, position)}

        def write(db: Database) -> list[Worker]:
            queue_positions.keep(db, {each.key: position for each, position in moved})
            told = [worker for worker in workers.with_keys(db, list(news)) if worker.is_waiting]
            for worker in told:
                if worker.kind is WorkerKind.RUN_WORKER:
                    run_log.waits(db, worker, now=self._context.wall())
            return told

        told = await self._context.store.run(write)
        if any(worker.kind is not WorkerKind.RUN_WORKER for worker in told):
            self._context.bells.heartbeat.ring()

    def _is_news(self, each: Waiting, position: Position) -> bool:
        """The first position is news, then one with fewer binary digits than any before: 7 after 8.

        That is a dozen lines at most, however long the queue, and none when a job falls behind.
        """
        earlier = each.position.number.bit_length() if each.position else None
        least = self._told.get(each.key, earlier)
        digits = position.number.bit_length()
        self._told[each.key] = digits if least is None else min(digits, least)
        return least is None or digits < least
