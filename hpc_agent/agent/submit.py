"""The submit loop: intents become jobs, each exactly once.

A job is SUBMITTING before sbatch is called. Whoever finds one so (after a crash, or after an sbatch
that ended without an answer) searches the scheduler for the job's key, or that of its array, over a
grace window, since sbatch itself retries for up to 120 s (sbatch(1), "Slurm temporarily unable to
accept job"), and only then submits again. One slow sbatch delays no other.

Jobs that are alike and due together are submitted as one job array.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.agent.tasks import Tasks
from hpc_agent.errors import SchedulerError
from hpc_agent.jobs.array_script import new_array_key
from hpc_agent.jobs.bursts import Bursts
from hpc_agent.slurm.scheduler import array_id
from hpc_agent.store import jobs, submissions
from hpc_agent.store.jobs import Job, Phase
from hpc_agent.workers.submission import Outcome, Submission, Verdict

log = logging.getLogger(__name__)

SEARCH_WINDOW_SECONDS = 150.0
_SEARCH_INTERVAL_SECONDS = 5.0
_IDLE_SECONDS = 30.0
_AT_ONCE = 4


class SubmitLoop:
    """Submits what is due."""

    def __init__(self, context: Context, tasks: Tasks) -> None:
        self._context = context
        self._tasks = tasks
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._submission = Submission(context)
        self._bursts = Bursts()
        self._numbers = itertools.count()
        self._taking = asyncio.Lock()
        self._at_work: set[str] = set()

    async def step(self) -> float:
        """Search for the jobs that may exist, then submit the ones that do not."""
        context = self._context
        for submission in await self._unsure():
            await self._search(submission)
        now = context.clock()
        for job in await context.store.run(lambda db: jobs.to_submit(db, now)):
            self._tasks.start(f"submit {job.key}", self._submit_single(job.key))
        return min(await self._submit_alike(now), await self._next_wait(now))

    async def _unsure(self) -> list[str]:
        """Return the submissions that may have been made, and that nobody here is working on."""
        async with self._taking:
            names = await self._context.store.run(submissions.submitting)
            return [name for name in names if name not in self._at_work]

    async def _next_wait(self, now: float) -> float:
        due = await self._context.store.run(lambda db: jobs.next_due(db, now))
        waits = [_SEARCH_INTERVAL_SECONDS] if self._at_work or await self._unsure() else []
        return min([*waits, *([] if due is None else [due - now])], default=_IDLE_SECONDS)

    async def _submit_alike(self, now: float) -> float:
        """Start what may go of each likeness; return how long the next of them gathers."""
        groups, more_coming = await self._context.store.run(
            lambda db: (submissions.due(db, now), submissions.launches_coming(db))
        )
        is_burst = more_coming or any(
            group.count > 1 or self._bursts.is_stream(group.likeness, now) for group in groups
        )
        largest = await self._largest_array() if groups and is_burst else 1
        waits = [_IDLE_SECONDS]
        for group in groups:
            task = f"submit like {group.likeness} "
            wait = self._bursts.wait(
                group,
                on_their_way=self._tasks.count(task),
                more_coming=more_coming,
                largest=largest,
                now=now,
            )
            if wait == 0.0:
                work = self._submit_burst(group.likeness, largest)
                self._tasks.start(f"{task}{next(self._numbers)}", work)
            elif wait is not None:
                waits.append(wait)
        return min(waits)

    async def _largest_array(self) -> int:
        if not self._context.config.scheduler.arrays:
            return 1
        try:
            return await self._context.scheduler.max_array_size()
        except SchedulerError as error:
            log.info("no job arrays for now: how large they may be is not known: %s", error)
            return 1

    async def _submit_single(self, key: str) -> None:
        def take(db: Database) -> list[Job]:
            if jobs.get(db, key).phase is not Phase.INTENT:
                return []
            return [submissions.begin(db, key, now=self._context.clock())]

        async with self._slots:
            await self._submit(take)

    async def _submit_burst(self, likeness: str, largest: int) -> None:
        async with self._slots:
            size = self._bursts.size(likeness, largest)
            now, key = self._context.clock(), new_array_key()
            self._bursts.begun(likeness, now)
            await self._submit(lambda db: submissions.take(db, likeness, key, limit=size, now=now))
        self._context.bells.submit.ring()

    async def _submit(self, take: Callable[[Database], list[Job]]) -> None:
        async with self._taking:
            taken = await self._context.store.run(take)
            if not taken:
                return
            name = submissions.submission_of(taken[0])
            self._at_work.add(name)
        try:
            outcome = await self._submission.call(taken)
            await self._conclude(taken, outcome)
        finally:
            self._at_work.discard(name)

    async def _conclude(self, taken: Sequence[Job], outcome: Outcome) -> None:
        submission, words, size = self._submission, outcome.words, len(taken)
        likeness = taken[0].likeness or taken[0].key
        match outcome.verdict:
            case Verdict.ACCEPTED:
                self._bursts.accepted(likeness, size)
                await submission.accept(taken, words)
            case Verdict.LIMITED if size > 1:
                self._bursts.limited(likeness, size)
                await submission.give_back(taken)
            case Verdict.LIMITED | Verdict.UNAVAILABLE:
                self._bursts.limited(likeness, size)
                await submission.hold_back([*taken, *await self._due_like(taken[0])], words)
            case Verdict.REFUSED if size > 1:
                self._bursts.array_refused(likeness, words)
                log.info("a job array was refused, trying a single job: %s", words)
                await submission.give_back(taken)
            case Verdict.REFUSED:
                is_for_all = self._bursts.job_refused(likeness, words)
                others = await self._due_like(taken[0]) if is_for_all else []
                await submission.refuse([*taken, *others], words)
            case Verdict.UNCLEAR:
                pass

    async def _due_like(self, job: Job) -> list[Job]:
        """Return the jobs to which applies what was said of this one."""
        likeness, now = job.likeness, self._context.clock()
        if likeness is None:
            return []
        return await self._context.store.run(lambda db: submissions.due_like(db, likeness, now))

    async def _search(self, name: str) -> None:
        context = self._context
        members = await context.store.run(lambda db: submissions.members(db, name))
        unsure = [job for job in members if job.phase is Phase.SUBMITTING]
        if not unsure:
            return
        known = next((job.job_id for job in members if job.job_id is not None), None)
        if known is not None:
            # A task that has told of its start is as good as sbatch's answer.
            await self._submission.accept(unsure, array_id(known), source="node")
            return
        since = unsure[0].submitting_since or unsure[0].created_at
        found = await context.scheduler_of(unsure[0]).find(
            name, since=datetime.fromtimestamp(since, UTC) - timedelta(minutes=1)
        )
        if found:
            newest = max(
                found, key=lambda record: record.submit_time or datetime.min.replace(tzinfo=UTC)
            )
            await self._submission.accept(unsure, array_id(newest.job_id), source=newest.source)
        elif context.clock() - since >= SEARCH_WINDOW_SECONDS:
            log.info("%s: sbatch made no job; submitting again", name)
            await self._submission.give_back(unsure, source="search")
