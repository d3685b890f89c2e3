"""How the jobs of steps are asked to end: by their run, or because it is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.errors import JobNotFoundError
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.store import steps, workers
from hpc_agent.store.database import Store
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker
from hpc_agent.workers import intents
from hpc_agent.workers.change import Change
from hpc_agent.workers.changes import Changes

log = logging.getLogger(__name__)

# More than the node program's own grace.
_MARGIN_SECONDS = 5.0
_NOTED_AT_ONCE = 40
_SIGNALLED_AT_ONCE = 4

Start = Callable[[str, Coroutine[Any, Any, None]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnding:
    """Asks jobs of steps to end; those that do not are cancelled after the grace period.

    ``start`` begins a task beside everything else (agent/tasks.py), which an error ends alone.
    """

    config: AgentConfig
    store: Store
    scheduler: Scheduler
    changes: Changes
    clock: Callable[[], float]
    start: Start

    def note(self, db: Database, some: Sequence[Worker]) -> list[Worker]:
        """Write down that they are to end; return those that are to be signalled."""
        now = self.clock()

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            grace = self.config.runs.grace_seconds + _MARGIN_SECONDS
            deadline = now + grace if worker.phase is Phase.RUNNING else now
            return intents.withdraw(worker, now, terminate_at=deadline)

        return [
            self.changes.within(db, worker.key, observe, source="run")
            for worker in some
            if worker.concluded_at is None and worker.terminate_at is None
        ]

    async def note_all(self, run_id: str) -> list[Worker]:
        """Do so with all steps of a run, some at a time; return those that are to be signalled."""
        keys = await self.store.run(lambda db: steps.open_of(db, run_id))
        noted: list[Worker] = []
        for first in range(0, len(keys), _NOTED_AT_ONCE):
            some = keys[first : first + _NOTED_AT_ONCE]
            noted += await self.store.run(
                lambda db, some=some: self.note(db, workers.with_keys(db, some))  # type: ignore[misc]
            )
        return noted

    def note_rest(self, db: Database, run_id: str) -> list[Worker]:
        """Do so with those that came meanwhile, as part of the transaction that ends the run."""
        return self.note(db, workers.with_keys(db, steps.open_of(db, run_id)))

    def signal(self, some: Sequence[Worker]) -> None:
        """Let running ones end by themselves, beside everything else.

        It is a courtesy: scancel follows when their time is over, whatever becomes of this.
        """
        running = [w for w in some if w.phase is Phase.RUNNING and w.own_job_id]
        if running:
            self.start(f"signal {running[0].key} and others", self._signal(running))

    async def _signal(self, some: Sequence[Worker]) -> None:
        """Signal a few at once, until the grace period is over or Slurm is away."""
        try:
            async with asyncio.timeout(self.config.runs.grace_seconds):
                for first in range(0, len(some), _SIGNALLED_AT_ONCE):
                    await asyncio.gather(*map(self._signal_one, some[first:][:_SIGNALLED_AT_ONCE]))
        except TimeoutError:
            log.info("not all of %d steps could be signalled in time; scancel follows", len(some))

    async def _signal_one(self, worker: Worker) -> None:
        with contextlib.suppress(JobNotFoundError):  # it has just ended by itself
            await self.scheduler.signal(str(worker.own_job_id), "INT")
