"""Takes what runs ask for: intents that survive any crash, and who follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlite_utils import Database

from hpc_agent.cluster.partition_book import PartitionBook
from hpc_agent.config import AgentConfig
from hpc_agent.errors import ConfigError, TemplateError
from hpc_agent.jobs import options
from hpc_agent.jobs.array_script import likeness_of
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.relay.broadcast import Broadcast
from hpc_agent.relay.identity import JobIdentity
from hpc_agent.relay.run_events import RunEvents
from hpc_agent.relay.step_requests import AskedJob, Followed, JobName, StepChanges, StepStatus
from hpc_agent.steps.ending import StepEnding
from hpc_agent.steps.launched import launched_run
from hpc_agent.steps.planning import Step, plan_step, step_key
from hpc_agent.steps.statuses import refused, status_of
from hpc_agent.store import steps, workers
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind

# Directories are made in threads, so many at once; a transaction takes so many intents.
_PREPARED_AT_ONCE = 8
_WRITTEN_AT_ONCE = 40
# Between a change and its answer: what follows at once comes along.
_GATHER_SECONDS = 0.05
_SPOOLED_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The agent's side of the step API.

    ``news`` rings when the job of a step has moved on or a run has written events, which
    ``run_events`` counts. ``spooled`` says whether events of a run wait for the control plane:
    until they are there, a run worker that hears of a job's end would miss the step's word on it.
    ``clock`` measures waits.
    """

    config: AgentConfig
    store: Store
    preparation: JobPreparation
    partitions: PartitionBook | None
    ending: StepEnding
    news: Broadcast
    run_events: RunEvents
    spooled: Callable[[str], bool]
    clock: Callable[[], float]
    _preparing: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_PREPARED_AT_ONCE)
    )

    async def submit(self, identity: JobIdentity, jobs: Sequence[AskedJob]) -> list[StepStatus]:
        """See StepDesk.submit."""
        run_id = str(identity.run_id)
        run = await self.store.run(lambda db: launched_run(db, run_id))
        if run is None:
            return [
                refused(job, "the agent knows nothing of how its run was launched") for job in jobs
            ]
        new = await self.store.run(
            lambda db: {
                (job.name, job.attempt): job
                for job in jobs
                if steps.find(db, run_id, job.name, job.attempt) is None
            }
        )
        prepared = await asyncio.gather(
            *(
                self._prepared(Step(run=run, asked=job, deployment=identity.deployment))
                for job in new.values()
            )
        )
        taken = dict(zip(new, prepared, strict=True))
        await self._write(run_id, [each for each in prepared if isinstance(each, _Intent)])
        return await self.store.run(
            lambda db: [
                self._standing(db, run_id, job, taken.get((job.name, job.attempt))) for job in jobs
            ]
        )

    async def changes(self, identity: JobIdentity, asked: Followed) -> StepChanges:
        """See StepDesk.changes."""
        run_id = str(identity.run_id)
        deadline = self.clock() + asked.wait
        while True:
            seen = self.news.count
            events = self.run_events.by_others(run_id, identity.key)
            cursor, changed = await self.store.run(
                lambda db: steps.changed_since(db, run_id, asked.after)
            )
            left = deadline - self.clock()
            if asked.after and self.spooled(run_id):
                if left <= 0:
                    return StepChanges(cursor=asked.after, events=asked.events, jobs=[])
                await asyncio.sleep(min(left, _SPOOLED_SECONDS))
                continue
            if changed or events != asked.events or not asked.after or left <= 0:
                return StepChanges(
                    cursor=cursor, events=events, jobs=[self._status(worker) for worker in changed]
                )
            await self.news.wait(seen, left)
            await asyncio.sleep(_GATHER_SECONDS)

    async def cancel(self, identity: JobIdentity, jobs: Sequence[JobName]) -> None:
        """See StepDesk.cancel."""
        run_id = str(identity.run_id)

        def note(db: Database) -> list[Worker]:
            found = [steps.find(db, run_id, job.name, job.attempt) for job in jobs]
            return self.ending.note(db, [worker for worker in found if worker is not None])

        await self.ending.signal(await self.store.run(note))

    def directory(self, identity: JobIdentity, job: JobName) -> str:
        """See StepDesk.directory: that of the first attempt, which later ones share."""
        key = step_key(str(identity.run_id), job.name, job.attempt)
        return str(self.preparation.work.of(key))

    def _status(self, worker: Worker) -> StepStatus:
        return status_of(worker, str(self.preparation.work.of(worker.key)))

    def _standing(
        self, db: Database, run_id: str, job: JobName, prepared: _Intent | StepStatus | None
    ) -> StepStatus:
        worker = steps.find(db, run_id, job.name, job.attempt)
        if worker is not None:
            return self._status(worker)
        if isinstance(prepared, StepStatus):
            return prepared
        if not _goes_on(db, run_id):
            return refused(job, "its run is ending")
        most = self.config.steps.max_per_run
        return refused(job, f"steps.max_per_run of agent.yaml allows a run {most} jobs")

    async def _prepared(self, step: Step) -> _Intent | StepStatus:
        """Write the directory of a job, which may be repeated; or say why there is none."""
        async with self._preparing:
            try:
                plan = await plan_step(self.store, self.config, step, partitions=self.partitions)
                script = await self.preparation.prepare(plan)
            except (ConfigError, TemplateError) as error:
                return refused(step.asked, str(error))
            key = plan.spec.key
            likeness = await asyncio.to_thread(likeness_of, script, key)
        worker = Worker(
            key=key,
            kind=WorkerKind.STEP,
            phase=Phase.INTENT,
            deployment=step.deployment,
            location=step.run.location,
            run_id=step.run.run_id,
            job_name=step.run.job_name,
            step=step.asked.name,
            step_attempt=step.asked.attempt,
            created_at=self.clock(),
            settings=options.to_json(plan.settings),
            likeness=likeness,
        )
        return _Intent(worker, step.asked.model_dump_json())

    async def _write(self, run_id: str, intents: Sequence[_Intent]) -> None:
        for first in range(0, len(intents), _WRITTEN_AT_ONCE):
            some = intents[first : first + _WRITTEN_AT_ONCE]
            await self.store.run(lambda db, some=some: self._insert(db, run_id, some))  # type: ignore[misc]

    def _insert(self, db: Database, run_id: str, some: Sequence[_Intent]) -> None:
        """Add intents of a run that goes on, up to the most that one may have."""
        if not _goes_on(db, run_id):
            return
        room = self.config.steps.max_per_run - steps.count(db, run_id)
        for each in some[: max(room, 0)]:
            if workers.insert(db, each.worker):
                steps.keep_request(db, each.worker.key, each.content)


@dataclass(frozen=True, slots=True)
class _Intent:
    worker: Worker
    content: str


def _goes_on(db: Database, run_id: str) -> bool:
    runner = workers.of_run(db, run_id)
    return runner is not None and runner.concluded_at is None and runner.terminate_at is None
