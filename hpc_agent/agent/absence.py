"""How long jobs have been absent: counted from look to look, while the scheduler answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.store import workers as stored
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import run_log

# What a look may add: an agent that stood still for an hour has seen nothing of that hour.
_LONGEST_STEP_SECONDS = 150.0
_SAY_AFTER_SECONDS = 60.0


class AbsenceClock:
    """Stands still whenever nothing is known: the scheduler is away, or its answer unreadable."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looks: dict[int, float] = {}
        self._silent_since: float | None = None
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self._looks)

    def seconds(self, job: int) -> float:
        """Return what this look adds to a job's absence: nothing, the first time."""
        now, last = self._clock(), self._looks.get(job)
        self._looks[job] = now
        self._silent_since = None
        self._told.clear()
        return 0.0 if last is None else max(min(now - last, _LONGEST_STEP_SECONDS), 1e-6)

    def present(self, jobs: Iterable[int]) -> None:
        """These jobs are there."""
        for job in jobs:
            self._looks.pop(job, None)

    def keep(self, jobs: Collection[int]) -> None:
        """Forget jobs that are over."""
        self._looks = {job: at for job, at in self._looks.items() if job in jobs}

    def pause(self) -> None:
        """Count nothing until the next look: nobody knows what is absent."""
        self._looks.clear()

    async def tell(self, context: Context, waiting: Sequence[Worker], words: str) -> None:
        """Say in the runs' logs, once, that nobody knows how their jobs stand for a minute now."""
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since < _SAY_AFTER_SECONDS:
            return
        keys = [
            worker.key
            for worker in waiting
            if worker.kind is WorkerKind.RUN_WORKER
            and not worker.phase.is_final
            and worker.key not in self._told
        ]
        # Who is not absent any more need not be remembered; a later absence is another one.
        self._told = self._told.intersection(each.key for each in waiting).union(keys)

        def write(db: Database) -> None:
            for worker in stored.with_keys(db, keys):
                line = (
                    f"Job {worker.job_id} is not in Slurm's queue any more, "
                    f"and how it stands is not known: {words}"
                )
                run_log.say_line(db, worker, line, now=context.wall())

        if keys:
            await context.store.run(write)
