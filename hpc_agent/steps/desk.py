"""Takes what runs ask for: intents that survive any crash, and who follows them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from sqlite_utils import Database

from hpc_agent.cluster.partition_book import PartitionBook
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ConfigError, TemplateError
from hpc_agent.jobs import options
from hpc_agent.jobs.array_script import likeness_of
from hpc_agent.jobs.directory import Template
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.relay.identity import JobIdentity
from hpc_agent.relay.run_events import RunEvents
from hpc_agent.relay.step_requests import AskedJob, Followed, JobName, StepChanges, StepStatus
from hpc_agent.runs.template import keep_template
from hpc_agent.steps.ending import StepEnding
from hpc_agent.steps.planning import Step, plan_step, step_key
from hpc_agent.steps.statuses import refused, status_of
from hpc_agent.store import launches, steps, workers
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind

# Directories are made in threads, of which others want some; a transaction takes so many intents.
_PREPARED_AT_ONCE = 4
_TAKEN_AT_ONCE = 40
# Between a change and its answer: what follows at once comes along.
_GATHER_SECONDS = 0.05
_SPOOLED_SECONDS = 1.0

_Name = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The agent's side of the step API.

    ``run_events`` wakes who follows a run, and counts what other jobs write. ``spooled`` says
    whether events of a run wait for the control plane: until they are there, a run worker that
    hears of a job's end would miss the step's word on it. ``clock`` measures waits.
    """

    config: AgentConfig
    store: Store
    preparation: JobPreparation
    partitions: PartitionBook | None
    ending: StepEnding
    run_events: RunEvents
    spooled: Callable[[str], bool]
    clock: Callable[[], float]
    _preparing: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_PREPARED_AT_ONCE)
    )
    _of_run: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def submit(self, identity: JobIdentity, jobs: Sequence[AskedJob]) -> list[StepStatus]:
        """See StepDesk.submit. Some at a time: each part is written down before the next begins."""
        run_id = str(identity.run_id)
        run = await self.store.run(lambda db: launches.find(db, run_id))
        if run is None:
            words = "the agent knows nothing of how its run was launched"
            return [refused(job, words) for job in jobs]
        statuses: list[StepStatus] = []
        # Who asks again, because it has waited too long, waits for what is under way.
        async with self._of_run.setdefault(run_id, asyncio.Lock()):
            for first in range(0, len(jobs), _TAKEN_AT_ONCE):
                some = jobs[first : first + _TAKEN_AT_ONCE]
                statuses += await self._take(run, identity, some)
        return statuses

    async def _take(
        self, run: RunToLaunch, identity: JobIdentity, jobs: Sequence[AskedJob]
    ) -> list[StepStatus]:
        run_id = run.run_id
        new = await self.store.run(lambda db: self._admitted(db, run_id, jobs))
        outcomes = await asyncio.gather(
            *(
                self._prepared(Step(run=run, asked=job, deployment=identity.deployment))
                for job in new.values()
            ),
            return_exceptions=True,
        )
        prepared = dict(zip(new, map(_raised, outcomes), strict=True))

        def write(db: Database) -> list[StepStatus]:
            if steps.may_ask(db, run_id):
                for each in prepared.values():
                    if isinstance(each, _Intent) and workers.insert(db, each.worker):
                        steps.keep_request(db, each.worker.key, each.content, asked_by=identity.key)
                        keep_template(db, each.worker, each.template, now=self.clock())
            return [self._standing(db, run_id, job, prepared.get(_name(job))) for job in jobs]

        return await self.store.run(write)

    def _admitted(
        self, db: Database, run_id: str, jobs: Sequence[AskedJob]
    ) -> dict[_Name, AskedJob]:
        """Return those that are new, up to the most that a run may have."""
        if not steps.may_ask(db, run_id):
            return {}
        new = {
            _name(job): job for job in jobs if steps.find(db, run_id, job.name, job.attempt) is None
        }
        room = max(self.config.steps.max_per_run - steps.count(db, run_id), 0)
        return dict(itertools.islice(new.items(), room))

    async def changes(self, identity: JobIdentity, asked: Followed) -> StepChanges:
        """See StepDesk.changes."""
        run_id = str(identity.run_id)
        bell, deadline = self.run_events.bell(run_id), self.clock() + asked.wait
        while True:
            seen = bell.count
            left = deadline - self.clock()
            if asked.after and self.spooled(run_id):
                if left <= 0:
                    return StepChanges(cursor=asked.after, events=asked.events, jobs=[])
                await asyncio.sleep(min(left, _SPOOLED_SECONDS))
                continue
            events = self.run_events.by_others(run_id, identity.key)
            cursor, changed = await self.store.run(
                lambda db: steps.changed_since(db, run_id, asked.after)
            )
            if changed or events != asked.events or not asked.after or left <= 0:
                return StepChanges(
                    cursor=cursor, events=events, jobs=[self._status(worker) for worker in changed]
                )
            await bell.wait(seen, left)
            await asyncio.sleep(_GATHER_SECONDS)

    async def cancel(self, identity: JobIdentity, jobs: Sequence[JobName]) -> None:
        """See StepDesk.cancel."""
        run_id = str(identity.run_id)

        def note(db: Database) -> list[Worker]:
            found = [steps.find(db, run_id, job.name, job.attempt) for job in jobs]
            return self.ending.note(db, [worker for worker in found if worker is not None])

        self.ending.signal(await self.store.run(note))

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
        if not steps.may_ask(db, run_id):
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
            placement=plan.placement,
            pool=plan.pool,
            settings=options.to_json(plan.settings),
            likeness=likeness,
        )
        return _Intent(worker, step.asked.model_dump_json(), plan.spec.template)


@dataclass(frozen=True, slots=True)
class _Intent:
    worker: Worker
    content: str
    template: Template | None


def _name(job: JobName) -> _Name:
    return job.name, job.attempt


def _raised(outcome: _Intent | StepStatus | BaseException) -> _Intent | StepStatus:
    """Return an outcome; one that has failed is raised once all the others are over."""
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
