"""The submit loop: intents become jobs, each exactly once.

A job is SUBMITTING before sbatch is called. Whoever finds one so (after a crash, or after an sbatch
that ended without an answer) searches the scheduler for the job's key over a grace window, since
sbatch itself retries for up to 120 s (sbatch(1), "Slurm temporarily unable to accept job"), and
only then submits again. One slow sbatch delays no other.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from sqlite_utils import Database

from hpc_agent.agent import answers
from hpc_agent.agent.changes import apply
from hpc_agent.agent.context import Context
from hpc_agent.agent.loop import Crew
from hpc_agent.dagster_plus import responses
from hpc_agent.errors import (
    SchedulerError,
    SchedulerLimitError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.jobs import lifecycle
from hpc_agent.jobs.lifecycle import Changes
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job, Phase

log = logging.getLogger(__name__)

SEARCH_WINDOW_SECONDS = 150.0
_SEARCH_INTERVAL_SECONDS = 5.0
_HELD_BACK_SECONDS = 10.0
_IDLE_SECONDS = 30.0
_AT_ONCE = 4


class SubmitLoop:
    """Submits what is due."""

    def __init__(self, context: Context, crew: Crew) -> None:
        self._context = context
        self._crew = crew
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def step(self) -> float:
        """Search for the jobs that may exist, then submit the ones that do not."""
        context = self._context
        unsure = await context.store.run(lambda db: jobs.in_phase(db, Phase.SUBMITTING))
        for job in unsure:
            if not self._crew.is_busy(_task_name(job)):
                await self._search(job)
        now = context.clock()
        for job in await context.store.run(lambda db: jobs.to_submit(db, now)):
            self._crew.start(_task_name(job), self._submit_in_turn(job))
        return await self._next_wait()

    async def _next_wait(self) -> float:
        def look(db: Database) -> tuple[list[Job], list[Job]]:
            return jobs.in_phase(db, Phase.SUBMITTING), jobs.in_phase(db, Phase.INTENT)

        unsure, intents = await self._context.store.run(look)
        now = self._context.clock()
        waits = [job.not_before - now for job in intents if job.not_before > now]
        if unsure:
            waits.append(_SEARCH_INTERVAL_SECONDS)
        return min(waits, default=_IDLE_SECONDS)

    async def _submit_in_turn(self, job: Job) -> None:
        async with self._slots:
            current = await self._context.store.run(lambda db: jobs.get(db, job.key))
            if current.phase is Phase.INTENT:
                await self._submit(current)

    async def _submit(self, job: Job) -> None:
        context = self._context
        started = context.clock()
        job = await context.store.run(
            lambda db: jobs.change(
                db,
                job.key,
                now=started,
                source="agent",
                phase=Phase.SUBMITTING,
                submitting_since=started,
            )
        )
        script = context.preparation.script_of(job.key)
        try:
            job_id = await context.scheduler_of(job).submit(
                script, name=f"hpc-agent:{job.key}", comment=job.key
            )
        except (SchedulerLimitError, SchedulerUnavailableError) as error:
            await self._hold_back(job, str(error))
        except SubmitAmbiguousError as error:
            log.warning("%s: sbatch ended without an answer, searching: %s", job.key, error)
        except SubmitRefusedError as error:
            await self._refuse(job, str(error))
        except SchedulerError as error:
            await self._refuse(job, str(error))
        else:
            await self._accept(job, job_id)

    async def _accept(self, job: Job, job_id: str, *, source: str = "sbatch") -> None:
        now = self._context.clock()

        def observe(job: Job) -> Changes:
            return lifecycle.observe_submission(job, job_id, now)

        await apply(self._context, job.key, observe, source=source)
        log.info("%s: submitted as job %s", job.key, job_id)

    async def _hold_back(self, job: Job, reason: str) -> None:
        """A limit or an absent controller: no failure, the job waits and its run says so."""
        now = self._context.clock()

        def observe(job: Job) -> Changes:
            return lifecycle.hold_back(job, reason, not_before=now + _HELD_BACK_SECONDS)

        await apply(self._context, job.key, observe, source="sbatch")
        log.info("%s: not submitted yet: %s", job.key, reason)

    async def _refuse(self, job: Job, message: str) -> None:
        context = self._context
        now = context.clock()
        await apply(
            context,
            job.key,
            lambda job: lifecycle.refuse(job, message, now),
            source="sbatch",
        )
        answer = responses.failure(f"{context.scheduler.name} refused the job: {message}")
        await context.store.run(lambda db: answers.give(db, job.request_id, answer, now=now))
        log.warning("%s: refused: %s", job.key, message)
        context.bells.report.ring()

    async def _search(self, job: Job) -> None:
        context = self._context
        since = job.submitting_since or job.created_at
        found = await context.scheduler_of(job).find(
            job.key, since=datetime.fromtimestamp(since, UTC) - timedelta(minutes=1)
        )
        if found:
            newest = max(
                found, key=lambda record: record.submit_time or datetime.min.replace(tzinfo=UTC)
            )
            await self._accept(job, newest.job_id, source=newest.source)
        elif context.clock() - since >= SEARCH_WINDOW_SECONDS:
            log.info("%s: sbatch made no job; submitting again", job.key)
            await apply(context, job.key, lifecycle.submit_again, source="search")


def _task_name(job: Job) -> str:
    return f"submit {job.key}"
