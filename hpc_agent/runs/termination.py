"""How a run's worker is asked to end, whoever wants it to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.errors import SchedulerError
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.store import workers
from hpc_agent.store.database import Store
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker
from hpc_agent.workers import intents, run_log
from hpc_agent.workers.change import Change
from hpc_agent.workers.changes import Changes

log = logging.getLogger(__name__)

TERMINATION_REQUESTED = "Termination requested; ending the run's job."
# More than the node program's own grace: it closes the run and goes by itself.
_MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """Asks run workers to end; ``clock`` measures waits, ``wall`` tells the time of day."""

    config: AgentConfig
    store: Store
    scheduler: Scheduler
    changes: Changes
    clock: Callable[[], float]
    wall: Callable[[], float]

    def note(
        self, db: Database, worker: Worker, words: str, *, is_canceling: bool, source: str
    ) -> Worker:
        """Write down that a worker is to end, and tell its run in these words; once.

        ``is_canceling`` says that the control plane has told the run already, or that it is over.
        """
        now, wall = self.clock(), self.wall()

        def observe(worker: Worker, _: Sequence[Job]) -> Change:
            grace = self.config.runs.grace_seconds + _MARGIN_SECONDS
            deadline = now + grace if worker.phase is Phase.RUNNING else now
            return intents.withdraw(worker, now, terminate_at=deadline)

        # One that is over but not concluded yet could still be followed by another attempt.
        if worker.concluded_at is not None or worker.terminate_at is not None:
            return worker
        run_log.say_line(db, worker, words, now=wall)
        if not is_canceling:
            run_log.canceling(db, worker, now=wall)
        return self.changes.within(db, worker.key, observe, source=source)

    async def signal(self, worker: Worker) -> None:
        """Let the run worker close its run; should that fail, scancel follows all the same.

        SIGTERM would not say who asks: Slurm sends it to preempt, and then the run may go on. One
        that lives in a pool is signalled by the supervisor there, which hears of its end.
        """
        if worker.phase is not Phase.RUNNING or worker.own_job_id is None:
            return
        try:
            await self.scheduler.signal(worker.own_job_id, "INT")
        except SchedulerError as error:
            log.warning("job %s could not be signalled: %s", worker.own_job_id, error)

    async def end(self, key: str, words: str, *, is_canceling: bool = False, source: str) -> Worker:
        """Ask one worker to end; see ``note``. Raises KeyError when there is none."""

        def write(db: Database) -> Worker:
            worker = workers.get(db, key)
            return self.note(db, worker, words, is_canceling=is_canceling, source=source)

        worker = await self.store.run(write)
        await self.signal(worker)
        return worker
