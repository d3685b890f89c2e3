"""How the jobs of steps are asked to end: by their run, or because it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.errors import SchedulerError
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.store import steps
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker
from hpc_agent.workers import intents
from hpc_agent.workers.change import Change
from hpc_agent.workers.changes import Changes

log = logging.getLogger(__name__)

# More than the node program's own grace.
_MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnding:
    """Asks jobs of steps to end; those that do not are cancelled after the grace period."""

    config: AgentConfig
    scheduler: Scheduler
    changes: Changes
    clock: Callable[[], float]

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

    def note_all(self, db: Database, run_id: str) -> list[Worker]:
        """Do so with all steps of a run, which is over."""
        return self.note(db, steps.live_of(db, run_id))

    async def signal(self, some: Sequence[Worker]) -> None:
        """Let running ones end by themselves; should that fail, scancel follows all the same."""
        for worker in some:
            if worker.phase is not Phase.RUNNING or worker.job_id is None:
                continue
            try:
                await self.scheduler.signal(worker.job_id, "INT")
            except SchedulerError as error:
                log.warning("job %s could not be signalled: %s", worker.job_id, error)
