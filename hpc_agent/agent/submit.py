"""The submit loop: intents become jobs, each exactly once.

A worker is SUBMITTING before sbatch is called. Whoever finds one so (after a crash, or after an
sbatch that ended without an answer) searches the scheduler for its key, or that of its array, and
only then submits again. One slow sbatch delays no other, and no search delays a submission.

Workers that are alike and due together are submitted as one job array.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.agent.search import Search
from hpc_agent.agent.step_room import StepRoom
from hpc_agent.errors import SchedulerError
from hpc_agent.jobs.array_script import new_array_key
from hpc_agent.jobs.bursts import Bursts
from hpc_agent.store import inbox, node_faults, submissions, workers
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.step_bounds import StepBounds
from hpc_agent.store.workers import Worker
from hpc_agent.workers.submission import HELD_BACK_SECONDS, Outcome, Submission, Verdict

log = logging.getLogger(__name__)

_SEARCH_INTERVAL_SECONDS = 5.0
_IDLE_SECONDS = 30.0
_AT_ONCE = 4
# A call that takes longer gives its place to another: a hung sbatch delays nobody like it.
_PLACE_SECONDS = 5.0
_TOLD_AT_ONCE = 200
_TAKEN_AT_ONCE = 100


class SubmitLoop:
    """Submits what is due."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._submission = Submission(
            changes=context.changes,
            preparation=context.preparation,
            scheduler_of=context.scheduler_of,
            clock=context.clock,
        )
        self._search = Search(context, self._submission)
        self._room = StepRoom(context)
        self._bursts = Bursts()
        self._numbers = itertools.count()
        self._taking = asyncio.Lock()
        self._at_work: set[str] = set()

    async def step(self) -> float:
        """Start a search for each job that may exist, and submit the ones that do not."""
        context = self._context
        for name in await self._unsure():
            self._context.tasks.start(f"search {name}", self._search.run(name), {"key": name})
        now = context.clock()
        held = await self._room.held_back(now)
        for key in await context.store.run(lambda db: submissions.single(db, now, held=held)):
            self._context.tasks.start(f"submit {key}", self._submit_single(key), {"key": key})
        return min(await self._submit_alike(now, held), await self._next_wait(now))

    async def _unsure(self) -> list[str]:
        """Return the submissions that may have been made, and that nobody here is working on."""
        async with self._taking:
            names = await self._context.store.run(submissions.unsure)
            self._search.keep(names)
            return [name for name in names if name not in self._at_work]

    async def _next_wait(self, now: float) -> float:
        due = await self._context.store.run(lambda db: submissions.next_due(db, now))
        waits = [_SEARCH_INTERVAL_SECONDS] if self._at_work or await self._unsure() else []
        return min([*waits, *([] if due is None else [due - now])], default=_IDLE_SECONDS)

    async def _submit_alike(self, now: float, held: Collection[str]) -> float:
        """Start what may go of each likeness; return how long the next of them gathers."""
        groups, more_coming = await self._context.store.run(
            lambda db: (submissions.due(db, now, held=held), inbox.has_launches(db))
        )
        self._bursts.forget_old(now)
        is_burst = more_coming or any(
            group.count > 1 or self._bursts.is_stream(group.likeness, now) for group in groups
        )
        largest = await self._largest_array() if groups and is_burst else 1
        waits = [_IDLE_SECONDS]
        for group in groups:
            task = f"submit like {group.likeness} "
            wait = self._bursts.wait(group, more_coming=more_coming, largest=largest, now=now)
            if wait == 0.0:
                work = self._submit_burst(group.likeness, largest)
                self._context.tasks.start(f"{task}{next(self._numbers)}", work)
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
        def take(db: Database) -> list[Worker]:
            now = self._context.clock()
            is_due = workers.get(db, key).phase is Phase.INTENT
            if not is_due or key in self._room.bounds.held_back(db, now):
                return []
            return [submissions.begin(db, key, now=now)]

        await self._submit(lambda: self._context.store.run(take))

    async def _submit_burst(self, likeness: str, largest: int) -> None:
        size = self._bursts.size(likeness, largest)
        now, key = self._context.clock(), new_array_key()
        ticket = self._bursts.begun(likeness, now)
        try:
            await self._submit(
                lambda: take_alike(
                    self._context.store, self._room.bounds, likeness, key, size=size, now=now
                )
            )
        finally:
            self._bursts.ended(likeness, ticket)
        self._context.bells.submit.ring()

    async def _submit(self, take: Callable[[], Awaitable[list[Worker]]]) -> None:
        async with self._places:
            async with self._taking:
                taken = await take()
                if not taken:
                    return
                name = submissions.key_of(taken[0])
                self._at_work.add(name)
            exclude = await self._failing_nodes()
            call = asyncio.ensure_future(self._submission.call(taken, exclude=exclude))
            try:
                await asyncio.wait([call], timeout=_PLACE_SECONDS)
            except asyncio.CancelledError:
                call.cancel()
                raise
        try:
            await self._conclude(taken, await call)
        finally:
            self._at_work.discard(name)

    async def _failing_nodes(self) -> Sequence[str]:
        """Return the nodes on which jobs fail one after the other, to keep off for a while."""
        minutes = self._context.config.scheduler.avoid_failing_nodes_minutes
        if not minutes:
            return ()
        since = self._context.wall() - minutes * 60
        return await self._context.store.run(lambda db: node_faults.to_avoid(db, since))

    async def _conclude(self, taken: Sequence[Worker], outcome: Outcome) -> None:
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
                self._bursts.hold(likeness, self._context.clock() + HELD_BACK_SECONDS)
                await submission.hold_back(taken, words)
                await self._tell_those_alike(taken[0], words)
            case Verdict.REFUSED if size > 1:
                self._bursts.array_refused(likeness, words)
                log.info("a job array was refused, trying a single job: %s", words)
                await submission.give_back(taken)
            case Verdict.REFUSED:
                is_for_all = self._bursts.job_refused(likeness, words)
                others = await self._alike(taken[0]) if is_for_all else []
                await submission.refuse([*taken, *others], words)
            case Verdict.UNCLEAR:
                self._search.doubtful(submissions.key_of(taken[0]), outcome)
                await submission.doubt(taken, words)

    async def _alike(self, worker: Worker) -> list[Worker]:
        """Return the workers to which applies what was said of this one."""
        likeness = worker.likeness
        if likeness is None:
            return []
        store = self._context.store
        keys = await store.run(lambda db: submissions.like(db, likeness))
        parts = store.in_parts(keys, workers.with_keys)
        return [worker async for some in parts for worker in some]

    async def _tell_those_alike(self, worker: Worker, words: str) -> None:
        """Let the runs of all that wait with it say why, once and not at each try."""
        likeness = worker.likeness
        while likeness is not None:
            some = await self._context.store.run(
                lambda db: workers.with_keys(
                    db, submissions.to_be_told(db, str(likeness), words, _TOLD_AT_ONCE)
                )
            )
            if not some:
                return
            await self._submission.hold_back(some, words)


async def take_alike(
    store: Store, bounds: StepBounds, likeness: str, array_key: str, *, size: int, now: float
) -> list[Worker]:
    """Take intents for one array in several transactions, so that others have their turn.

    Should the agent die between two of them, the search finds that no array came of it.
    """
    taken: list[Worker] = []
    while len(taken) < size:
        limit = min(size - len(taken), _TAKEN_AT_ONCE)

        def take(db: Database, limit: int = limit, first: int = len(taken)) -> list[Worker]:
            held = bounds.held_back(db, now)
            return submissions.take(
                db, likeness, array_key, limit=limit, now=now, first=first, held=held
            )

        some = await store.run(take)
        taken += some
        if len(some) < limit:
            break
    return taken
