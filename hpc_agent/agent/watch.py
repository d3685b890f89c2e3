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

from hpc_agent.agent.context import Context
from hpc_agent.errors import JobNotFoundError
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store import jobs, tracking
from hpc_agent.store.jobs import Job
from hpc_agent.store.tracking import Tracked
from hpc_agent.workers import evidence
from hpc_agent.workers.changes import apply
from hpc_agent.workers.evidence import ExitRecord

log = logging.getLogger(__name__)

_FAST_SECONDS = 2.0
_FAST_FOR_SECONDS = 30.0
_IDLE_SECONDS = 300.0
_QUIET_SECONDS = 60.0
_LOOK_INTO_QUEUE_AFTER_SECONDS = 1.0
# After a restart all jobs are news; ten thousand rows at once would stay in the process's memory.
_READ_AT_ONCE = 500

# Of any other end (out of memory, timeout, preemption, …) Slurm knows more than the job did.
_TOLD_BETTER_BY_EXIT_RECORD = frozenset({JobState.COMPLETED, JobState.FAILED})


class WatchLoop:
    """Keeps the jobs' states true."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._quiet_looks = 0
        self._tracked: Tracked | None = None
        self._settled: dict[str, JobRecord] = {}

    async def step(self) -> float:
        """Look at all submitted jobs once."""
        context, earlier = self._context, self._tracked
        tracked = await self._track()
        if not tracked:
            return _IDLE_SECONDS
        records = {record.job_id: record for record in await context.scheduler.queue()}
        await self._observe_news(tracked, records)
        for key in tracked.in_packs:
            # Its state follows the pack's; that it has ended alone, it may fail to tell.
            await self._read_exit_record(key)
        left = await self._track()
        is_quiet = earlier is not None and left.change == earlier.change
        self._quiet_looks = self._quiet_looks + 1 if is_quiet else 0
        return self._next_wait(left)

    async def _track(self) -> Tracked:
        known = self._tracked
        self._tracked = await self._context.store.run(lambda db: tracking.tracked(db, known))
        return self._tracked

    async def _observe_news(self, tracked: Tracked, records: Mapping[str, JobRecord]) -> None:
        """Take in what is not as it was at the last look, and search for what is absent."""
        settled = self._settled
        keys = [
            key
            for job_id, key in tracked.keys.items()
            if job_id not in records or settled.get(job_id) is not records[job_id]
        ]
        absent = []
        for first in range(0, len(keys), _READ_AT_ONCE):
            for job in await self._read(keys[first : first + _READ_AT_ONCE]):
                record = records.get(str(job.job_id))
                if record is None:
                    absent.append(job)
                else:
                    await self._observe(job, record)
        self._settled = {job_id: records[job_id] for job_id in tracked.keys if job_id in records}
        if absent:
            await self._investigate(absent)

    async def _read(self, keys: Sequence[str]) -> Sequence[Job]:
        return await self._context.store.run(lambda db: jobs.with_keys(db, keys))

    def _next_wait(self, tracked: Tracked) -> float:
        """Look soon after a submission and at an end, when jobs change; slowly otherwise.

        While nothing changes, ever more slowly: jobs tell their own start and end.
        """
        if not tracked:
            return _IDLE_SECONDS
        age = self._context.clock() - tracked.youngest
        if age < _LOOK_INTO_QUEUE_AFTER_SECONDS:
            return _LOOK_INTO_QUEUE_AFTER_SECONDS
        if tracked.is_any_leaving or (tracked.is_any_waiting and age < _FAST_FOR_SECONDS):
            return _FAST_SECONDS
        poll_seconds = self._context.config.scheduler.poll_seconds
        slowed: float = poll_seconds * 2 ** min(self._quiet_looks, 8)
        return min(slowed, max(poll_seconds, _QUIET_SECONDS))

    async def _observe(self, job: Job, record: JobRecord) -> None:
        if record.state is JobState.UNKNOWN:
            log.warning("job %s: unknown state %r", job.job_id, record.raw_state)
        if record.state in _TOLD_BETTER_BY_EXIT_RECORD and await self._read_exit_record(job.key):
            return
        now = self._context.clock()
        if not evidence.observe_record(job, record, now):
            return  # most looks find a job as it was: no transaction for that
        await apply(
            self._context,
            job.key,
            lambda job: evidence.observe_record(job, record, now),
            source=record.source,
        )

    async def _read_exit_record(self, key: str) -> bool:
        """Take the node program's own record of the end; True when there is one."""
        content = await asyncio.to_thread(self._context.preparation.work.exit_record, key)
        if content is None:
            return False
        record, now = ExitRecord.from_json(content), self._context.clock()
        await apply(
            self._context,
            key,
            lambda job: evidence.observe_exit(job, record, now),
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
            elif not await self._read_exit_record(job.key):
                await self._ask_controller(job)

    async def _accounting(self, job_ids: Sequence[str], since: float) -> Mapping[str, JobRecord]:
        records = await self._context.scheduler.history(
            job_ids, since=datetime.fromtimestamp(since, UTC) - timedelta(minutes=5)
        )
        return {record.job_id: record for record in records}

    async def _ask_controller(self, job: Job) -> None:
        scheduler = self._context.scheduler
        if evidence.was_cancelled_without_trace(job):
            await self._note_absence(job)
            return
        try:
            record = await scheduler.show(str(job.job_id))
        except JobNotFoundError:
            if await scheduler.healthy():
                await self._note_absence(job)
        else:
            await self._observe(job, record)

    async def _note_absence(self, job: Job) -> None:
        now = self._context.clock()
        limit = self._context.config.scheduler.lost_after_seconds
        await apply(
            self._context,
            job.key,
            lambda job: evidence.absence(job, now, limit),
            source="absence",
        )
