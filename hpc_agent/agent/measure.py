"""The measure loop: after a run's job has ended, what it used is told in the run's log.

slurmdbd learns of an end late, so accounting is asked after a while, once for all jobs that have
ended, and a few times at most; then the exit record must do. No run waits for this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.errors import SchedulerError
from hpc_agent.runs import efficiency, run_log
from hpc_agent.runs.efficiency import Efficiency
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job
from hpc_agent.workers.evidence import ExitRecord

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_ASK_AFTER_SECONDS = 8.0
_ASK_AGAIN_SECONDS = 30.0
_GIVE_UP_AFTER_SECONDS = 90.0
_TOO_OLD_SECONDS = 3600.0


class MeasureLoop:
    """Tells what jobs have used."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def step(self) -> float:
        """Measure what has ended long enough ago; return when the next one is due."""
        now = self._context.clock()
        ended = await self._context.store.run(
            lambda db: jobs.to_measure(db, since=now - _TOO_OLD_SECONDS)
        )
        due = [job for job in ended if now - (job.ended_at or now) >= _ASK_AFTER_SECONDS]
        if not due:
            return _ASK_AFTER_SECONDS if ended else _IDLE_SECONDS
        used = await self._usage(due)
        waits = False
        for job in due:
            usage = used.get(str(job.job_id))
            is_last = now - (job.ended_at or now) >= _GIVE_UP_AFTER_SECONDS
            if is_last or (usage is not None and usage.cpu_seconds is not None):
                await self._tell(job, usage, now)
            else:
                waits = True
        return _ASK_AGAIN_SECONDS if waits else _ASK_AFTER_SECONDS

    async def _usage(self, ended: Sequence[Job]) -> Mapping[str, Usage]:
        """Ask accounting; where it is away nothing is known of any job, and time goes on."""
        since = min(job.submitted_at or job.created_at for job in ended)
        try:
            return await self._context.scheduler.usage(
                [str(job.job_id) for job in ended],
                since=datetime.fromtimestamp(since, UTC) - timedelta(minutes=5),
            )
        except SchedulerError as error:
            log.info("what %d jobs have used is not known yet: %s", len(ended), error)
            return {}

    async def _tell(self, job: Job, usage: Usage | None, now: float) -> None:
        work = self._context.preparation.work
        content = await asyncio.to_thread(work.exit_record, job.key)
        record = ExitRecord.from_json(content) if content else None
        found = efficiency.measure(job, usage, record)

        def write(db: Database) -> None:
            self._write(db, job, found, now)

        await self._context.store.run(write)
        self._context.bells.report.ring()

    def _write(self, db: Database, job: Job, found: Efficiency, now: float) -> None:
        line, entries = efficiency.describe(job, found), efficiency.metadata(found)
        run_log.say_line(db, job, line, now=now, metadata=entries)
        jobs.change(db, job.key, now=now, source="agent", measured_at=now)
