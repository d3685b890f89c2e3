"""One call of sbatch, for one job or for the tasks of one array, and what follows from its answer.

The jobs are SUBMITTING before the call. Each ends as it would alone: submitted, held back, refused,
given back, or left for the search when sbatch ended without an answer.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import responses
from hpc_agent.errors import (
    SchedulerError,
    SchedulerLimitError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
)
from hpc_agent.jobs import array_script
from hpc_agent.runs import answers
from hpc_agent.slurm.scheduler import task_id
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job
from hpc_agent.workers import evidence
from hpc_agent.workers.changes import Observe, apply_to_all
from hpc_agent.workers.evidence import Changes

log = logging.getLogger(__name__)

_HELD_BACK_SECONDS = 10.0


class Verdict(enum.Enum):
    """What sbatch said."""

    ACCEPTED = "accepted"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What sbatch said, and in which words; ``words`` of an accepted one are the job's id."""

    verdict: Verdict
    words: str


class Submission:
    """Calls sbatch, and carries out what its answer means for each job."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def call(self, taken: Sequence[Job]) -> Outcome:
        """Submit a single job, or several as the array that they belong to."""
        try:
            return Outcome(Verdict.ACCEPTED, await self._sbatch(taken))
        except SchedulerLimitError as error:
            return Outcome(Verdict.LIMITED, str(error))
        except SchedulerUnavailableError as error:
            return Outcome(Verdict.UNAVAILABLE, str(error))
        except SubmitAmbiguousError as error:
            log.warning("%s: sbatch ended without an answer, searching: %s", _name(taken), error)
            return Outcome(Verdict.UNCLEAR, str(error))
        except SchedulerError as error:
            return Outcome(Verdict.REFUSED, str(error))

    async def accept(self, taken: Sequence[Job], job_id: str, *, source: str = "sbatch") -> None:
        """The scheduler has the jobs: one as this job, an array's as its tasks."""
        now = self._context.clock()

        def observe(job: Job) -> Changes:
            index = job.array_index
            return evidence.observe_submission(
                job, job_id if index is None else task_id(job_id, index), now
            )

        await self._apply(taken, observe, source)
        log.info("%s: submitted as job %s", _name(taken), job_id)

    async def hold_back(self, held: Sequence[Job], reason: str) -> None:
        """A limit or an absent controller: no failure, the jobs wait and their runs say so."""
        now = self._context.clock()

        def observe(job: Job) -> Changes:
            return evidence.hold_back(job, reason, now=now, not_before=now + _HELD_BACK_SECONDS)

        await self._apply(held, observe, "sbatch")
        await self._forget_array(held)
        log.info("%s: not submitted yet: %s", _name(held), reason)

    async def give_back(self, taken: Sequence[Job], *, source: str = "sbatch") -> None:
        """The call is known to have made no job: the jobs are due as before."""
        now = self._context.clock()
        await self._apply(taken, lambda job: evidence.submit_again(job, now), source)
        await self._forget_array(taken)

    async def refuse(self, refused: Sequence[Job], words: str) -> None:
        """The scheduler does not want the jobs; whoever asked for them is told."""
        context, now = self._context, self._context.clock()
        await self._apply(refused, lambda job: evidence.refuse(job, words, now), "sbatch")
        answer = responses.failure(f"{context.scheduler.name} refused the job: {words}")

        def tell(db: Database) -> None:
            for job in refused:
                answers.give(db, jobs.get(db, job.key).request_id, answer, now=now)

        await context.store.run(tell)
        log.warning("%s: refused: %s", _name(refused), words)
        context.bells.report.ring()

    async def _apply(self, some: Sequence[Job], observe: Observe, source: str) -> None:
        await apply_to_all(self._context, [job.key for job in some], observe, source=source)

    async def _forget_array(self, taken: Sequence[Job]) -> None:
        """Remove the directory of an array that never was."""
        work = self._context.preparation.work
        for array_key in {job.array_key for job in taken} - {None}:
            await asyncio.to_thread(work.remove, str(array_key))

    async def _sbatch(self, taken: Sequence[Job]) -> str:
        first, context = taken[0], self._context
        scheduler, preparation = context.scheduler_of(first), context.preparation
        if first.array_key is None:
            script = preparation.work.script_of(first.key)
            return await scheduler.submit(script, name=f"hpc-agent:{first.key}", comment=first.key)
        array_key, keys = first.array_key, [job.key for job in taken]
        try:
            script = await asyncio.to_thread(
                array_script.prepare_array, preparation.work, array_key, keys
            )
        except OSError as error:
            raise SchedulerUnavailableError(
                f"cannot write the job array's directory in {preparation.work.jobs}: {error}"
            ) from error
        name = f"hpc-agent:{array_key}"
        return await scheduler.submit_array(script, name=name, comment=array_key, size=len(keys))


def _name(some: Sequence[Job]) -> str:
    first = some[0].key
    return first if len(some) == 1 else f"{first} and {len(some) - 1} like it"
