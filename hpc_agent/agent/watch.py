"""The watch loop: one query for all jobs, and evidence before any conclusion.

Absence from the queue starts a search (accounting, the exit record, the controller's own memory);
only a long absence under a controller that answers makes a job LOST. A failed query changes
nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from hpc_agent.agent.changes import apply
from hpc_agent.agent.context import Context
from hpc_agent.errors import JobNotFoundError
from hpc_agent.jobs import lifecycle
from hpc_agent.jobs.lifecycle import ExitRecord
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job, Phase

log = logging.getLogger(__name__)

_FAST_SECONDS = 2.0
_FAST_FOR_SECONDS = 30.0
_IDLE_SECONDS = 300.0
_QUIET_SECONDS = 60.0
_LOOK_INTO_QUEUE_AFTER_SECONDS = 1.0

# Of any other end (out of memory, timeout, preemption, …) Slurm knows more than the job did.
_TOLD_BETTER_BY_EXIT_RECORD = frozenset({JobState.COMPLETED, JobState.FAILED})


class WatchLoop:
    """Keeps the jobs' states true."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._quiet_looks = 0
        self._last_seen: Sequence[Job] = ()

    async def step(self) -> float:
        """Look at all submitted jobs once."""
        context = self._context
        tracked = await context.store.run(lambda db: jobs.in_phase(db, Phase.QUEUED, Phase.RUNNING))
        if not tracked:
            return _IDLE_SECONDS
        records = {record.job_id: record for record in await context.scheduler.queue()}
        absent = []
        for job in tracked:
            if job.pack_key is not None:
                # Its state follows the pack's; that it has ended alone, it may fail to tell.
                await self._read_exit_record(job)
                continue
            record = records.get(str(job.job_id))
            if record is None:
                absent.append(job)
            else:
                await self._observe(job, record)
        if absent:
            await self._investigate(absent)
        left = await context.store.run(lambda db: jobs.in_phase(db, Phase.QUEUED, Phase.RUNNING))
        self._quiet_looks = self._quiet_looks + 1 if left == self._last_seen else 0
        self._last_seen = left
        return self._next_wait(left)

    def _next_wait(self, tracked: Sequence[Job]) -> float:
        """Look soon after a submission and at an end, when jobs change; slowly otherwise.

        While nothing changes, ever more slowly: jobs tell their own start and end.
        """
        if not tracked:
            return _IDLE_SECONDS
        now = self._context.clock()
        youngest = max(job.submitted_at or 0.0 for job in tracked)
        if now - youngest < _LOOK_INTO_QUEUE_AFTER_SECONDS:
            return _LOOK_INTO_QUEUE_AFTER_SECONDS
        waiting = any(job.phase is Phase.QUEUED for job in tracked)
        leaving = any(job.state is JobState.COMPLETING for job in tracked)
        if leaving or (waiting and now - youngest < _FAST_FOR_SECONDS):
            return _FAST_SECONDS
        poll_seconds = self._context.config.scheduler.poll_seconds
        slowed: float = poll_seconds * 2 ** min(self._quiet_looks, 8)
        return min(slowed, max(poll_seconds, _QUIET_SECONDS))

    async def _observe(self, job: Job, record: JobRecord) -> None:
        if record.state is JobState.UNKNOWN:
            log.warning("job %s: unknown state %r", job.job_id, record.raw_state)
        if record.state in _TOLD_BETTER_BY_EXIT_RECORD and await self._read_exit_record(job):
            return
        now = self._context.clock()
        await apply(
            self._context,
            job.key,
            lambda job: lifecycle.observe_record(job, record, now),
            source=record.source,
        )

    async def _read_exit_record(self, job: Job) -> bool:
        """Take the node program's own record of the end; True when there is one."""
        content = await asyncio.to_thread(self._context.preparation.work.exit_record, job.key)
        if content is None:
            return False
        record, now = ExitRecord.from_json(content), self._context.clock()
        await apply(
            self._context,
            job.key,
            lambda job: lifecycle.observe_exit(job, record, now),
            source="exit record",
        )
        return True

    async def _investigate(self, absent: Sequence[Job]) -> None:
        since = min(job.submitted_at or job.created_at for job in absent)
        found = await self._accounting([str(job.job_id) for job in absent], since)
        for job in absent:
            record = found.get(str(job.job_id))
            if record is not None and record.state is not JobState.UNKNOWN:
                await self._observe(job, record)
            elif not await self._read_exit_record(job):
                await self._ask_controller(job)

    async def _accounting(self, job_ids: Sequence[str], since: float) -> Mapping[str, JobRecord]:
        records = await self._context.scheduler.history(
            job_ids, since=datetime.fromtimestamp(since, UTC) - timedelta(minutes=5)
        )
        return {record.job_id: record for record in records}

    async def _ask_controller(self, job: Job) -> None:
        context = self._context
        try:
            record = await context.scheduler.show(str(job.job_id))
        except JobNotFoundError:
            if await context.scheduler.healthy():
                now, limit = context.clock(), context.config.scheduler.lost_after_seconds
                await apply(
                    context,
                    job.key,
                    lambda job: lifecycle.absence(job, now, limit),
                    source="absence",
                )
        else:
            await self._observe(job, record)
