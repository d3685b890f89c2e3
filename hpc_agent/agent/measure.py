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
from hpc_agent.isolation import for_each
from hpc_agent.runs import efficiency
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.store import workers
from hpc_agent.store.workers import Worker
from hpc_agent.workers import run_log

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
            lambda db: workers.to_measure(db, since=now - _TOO_OLD_SECONDS)
        )
        due = [worker for worker in ended if now - (worker.ended_at or now) >= _ASK_AFTER_SECONDS]
        if not due:
            return _ASK_AFTER_SECONDS if ended else _IDLE_SECONDS
        used = await self._usage(due)
        ready = []
        for worker in due:
            usage = used.get(str(worker.job_id))
            is_last = now - (worker.ended_at or now) >= _GIVE_UP_AFTER_SECONDS
            if is_last or (usage is not None and usage.cpu_seconds is not None):
                ready.append((worker, usage))
        failed = await for_each(
            "measure",
            ready,
            self._tell,
            name=lambda each: each[0].key,
            fields=lambda each: each[0].log_fields,
        )
        waits = len(ready) < len(due) or failed
        return _ASK_AGAIN_SECONDS if waits else _ASK_AFTER_SECONDS

    async def _usage(self, ended: Sequence[Worker]) -> Mapping[str, Usage]:
        """Ask accounting; where it is away nothing is known of any worker, and time goes on."""
        since = min(worker.submitted_at or worker.created_at for worker in ended)
        try:
            return await self._context.scheduler.usage(
                [str(worker.job_id) for worker in ended],
                since=datetime.fromtimestamp(since, UTC)
                - self._context.clock.ahead()
                - timedelta(minutes=5),
            )
        except SchedulerError as error:
            log.info("what %d jobs have used is not known yet: %s", len(ended), error)
            return {}

    async def _tell(self, measured: tuple[Worker, Usage | None]) -> None:
        worker, usage = measured
        work, context = self._context.preparation.work, self._context
        record = await asyncio.to_thread(work.exit_record, worker.key)
        found = efficiency.measure(worker, usage, record)
        line, entries = efficiency.describe(worker, found), efficiency.metadata(found)

        def write(db: Database) -> None:
            run_log.say_line(db, worker, line, now=context.wall(), metadata=entries)
            now = context.clock()
            workers.change(db, worker.key, now=now, source="agent", measured_at=now)

        await context.store.run(write)
