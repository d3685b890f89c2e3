"""One call of sbatch, for one worker or for the tasks of one array, and what its answer means.

The workers are SUBMITTING before the call. Each ends as it would alone: submitted, held back,
refused, given back, or left for the search when sbatch ended without an answer.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpc_agent.errors import (
    FilesUnavailableError,
    SchedulerError,
    SchedulerLimitError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
)
from hpc_agent.jobs import array_script
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.slurm.scheduler import Scheduler, task_id
from hpc_agent.store.jobs import Job
from hpc_agent.store.submissions import key_of
from hpc_agent.store.workers import Worker
from hpc_agent.workers import intents
from hpc_agent.workers.change import Change
from hpc_agent.workers.changes import Changes, Observe

log = logging.getLogger(__name__)

HELD_BACK_SECONDS = 10.0


class Verdict(enum.Enum):
    """What sbatch said."""

    ACCEPTED = "accepted"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What sbatch said, and in which words; ``words`` of an accepted one are the job's id.

    ``is_unknown``: nobody knows the words of an unclear answer, and they may be a refusal.
    """

    verdict: Verdict
    words: str
    is_unknown: bool = False


class Submission:
    """Calls sbatch, and carries out what its answer means for each worker."""

    def __init__(
        self,
        *,
        changes: Changes,
        preparation: JobPreparation,
        scheduler_of: Callable[[Worker], Scheduler],
        clock: Callable[[], float],
    ) -> None:
        self._changes = changes
        self._preparation = preparation
        self._scheduler_of = scheduler_of
        self._clock = clock

    async def call(self, taken: Sequence[Worker], *, exclude: Sequence[str] = ()) -> Outcome:
        """Submit a single worker, or several as the array that they belong to.

        Slurm refuses a job that may run on none but the excluded nodes: there, a node that fails
        jobs is better than a run that fails for certain.
        """
        outcome = await self._call(taken, exclude)
        if not exclude or outcome.verdict is not Verdict.REFUSED:
            return outcome
        log.info("%s: refused without %s, trying with them", _name(taken), ", ".join(exclude))
        return await self._call(taken, ())

    async def _call(self, taken: Sequence[Worker], exclude: Sequence[str]) -> Outcome:
        try:
            return Outcome(Verdict.ACCEPTED, await self._sbatch(taken, exclude))
        except SchedulerLimitError as error:
            return Outcome(Verdict.LIMITED, str(error))
        except (SchedulerUnavailableError, FilesUnavailableError) as error:
            return Outcome(Verdict.UNAVAILABLE, str(error))
        except SubmitAmbiguousError as error:
            log.warning("%s: sbatch ended without an answer, searching: %s", _name(taken), error)
            return Outcome(Verdict.UNCLEAR, str(error), is_unknown=error.unknown_words)
        except SchedulerError as error:
            return Outcome(Verdict.REFUSED, str(error))

    async def accept(self, taken: Sequence[Worker], job_id: str, *, source: str = "sbatch") -> None:
        """The scheduler has the jobs: one as this job, an array's as its tasks."""
        now = self._clock()

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            index = worker.array_index
            mine = job_id if index is None else task_id(job_id, index)
            return intents.observe_submission(worker, mine, now)

        await self._apply(taken, observe, source)
        log.info("%s: submitted as job %s", _name(taken), job_id)

    async def hold_back(self, held: Sequence[Worker], reason: str) -> None:
        """A limit or an absent controller: no failure, the workers wait and their runs say so."""
        now = self._clock()

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            return intents.hold_back(worker, reason, now=now, not_before=now + HELD_BACK_SECONDS)

        await self._apply(held, observe, "sbatch")
        await self._forget_array(held)
        log.info("%s: not submitted yet: %s", _name(held), reason)

    async def give_back(self, taken: Sequence[Worker], *, source: str = "sbatch") -> None:
        """The call is known to have made no job: the workers are due as before."""
        now = self._clock()
        await self._apply(taken, lambda worker, _: intents.submit_again(worker, now), source)
        await self._forget_array(taken)

    async def doubt(self, taken: Sequence[Worker], words: str) -> None:
        """Nobody knows whether there is a job: the search begins now, and the runs say so."""
        now = self._clock()
        reason = f"it is not known whether Slurm has the job; looking for it ({words})"
        await self._apply(taken, lambda worker, _: intents.doubt(worker, reason, now), "sbatch")

    async def doubt_on(self, taken: Sequence[Worker], words: str) -> None:
        """The search cannot be made at the moment: the runs say so, and the search goes on."""
        reason = f"it is not known whether Slurm has the job, and nobody can be asked ({words})"

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            return intents.doubt(worker, reason, worker.submitting_since)

        await self._apply(taken, observe, "search")

    async def refuse(self, refused: Sequence[Worker], words: str) -> None:
        """The scheduler does not want the jobs."""
        now = self._clock()
        await self._apply(refused, lambda worker, _: intents.refuse(worker, words, now), "sbatch")
        log.warning("%s: refused: %s", _name(refused), words)

    async def _apply(self, some: Sequence[Worker], observe: Observe, source: str) -> None:
        await self._changes.apply_to_all([worker.key for worker in some], observe, source=source)

    async def _forget_array(self, taken: Sequence[Worker]) -> None:
        """Remove the directory of an array that never was."""
        work = self._preparation.work
        for array_key in {worker.array_key for worker in taken} - {None}:
            await asyncio.to_thread(work.remove, str(array_key))

    async def _sbatch(self, taken: Sequence[Worker], exclude: Sequence[str]) -> str:
        first, work = taken[0], self._preparation.work
        scheduler, key = self._scheduler_of(first), key_of(first)
        name = f"hpc-agent:{key}"
        if first.array_key is None:
            script = work.script_of(key)
            return await scheduler.submit(script, name=name, comment=key, exclude=exclude)
        keys = [worker.key for worker in taken]
        script = await asyncio.to_thread(array_script.prepare_array, work, key, keys)
        return await scheduler.submit_array(
            script, name=name, comment=key, size=len(keys), exclude=exclude
        )


def _name(some: Sequence[Worker]) -> str:
    first = some[0].key
    return first if len(some) == 1 else f"{first} and {len(some) - 1} like it"
