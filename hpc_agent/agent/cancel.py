"""The cancel loop: whatever was asked to end and is not gone by its time is ended by scancel."""

from __future__ import annotations

import asyncio
import logging

from hpc_agent.agent.context import Context
from hpc_agent.store import jobs, tracking
from hpc_agent.store.jobs import Job

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_SHORTEST_SECONDS = 0.2


class CancelLoop:
    """Ends jobs. Termination always ends here, even when the job has gone by itself."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def step(self) -> float:
        """Cancel what is due; return the time to the next deadline."""
        context = self._context
        now = context.clock()
        for job in await context.store.run(lambda db: jobs.to_cancel(db, now)):
            await self._end(job)
            key = job.key
            await context.store.run(
                lambda db, key=key: jobs.change(  # type: ignore[misc]
                    db, key, now=now, source="scancel", cancelled_at=now
                )
            )
            log.info("%s: job %s cancelled", job.key, job.job_id)
            context.bells.watch.ring()
        return await self._next_wait(now)

    async def _end(self, job: Job) -> None:
        """A job in a pack ends by itself when its order is taken back; its neighbours go on."""
        if job.pack_key is None:
            await self._context.scheduler.cancel(str(job.job_id))
        else:
            work = self._context.preparation.work
            await asyncio.to_thread(work.withdraw_order, job.pack_key, job.key)

    async def _next_wait(self, now: float) -> float:
        deadline = await self._context.store.run(tracking.next_deadline)
        wait = _IDLE_SECONDS if deadline is None else deadline - now
        return min(max(wait, _SHORTEST_SECONDS), _IDLE_SECONDS)
