"""LAUNCH_RUN and TERMINATE_RUN: from a request to an intent that survives any crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.cluster.partition_book import PartitionBook
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus import agent_calls, responses
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.dagster_plus.instance_ref import instance_ref
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.dagster_plus.serdes import Packed
from hpc_agent.errors import ConfigError, TemplateError
from hpc_agent.jobs import options
from hpc_agent.jobs.array_script import likeness_of
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.runs.last_word import FINISHED
from hpc_agent.runs.planning import plan_attempt
from hpc_agent.runs.step_needs import StepNeeds
from hpc_agent.runs.tags import strange_tags
from hpc_agent.runs.template import keep_template
from hpc_agent.runs.termination import TERMINATION_REQUESTED, Termination
from hpc_agent.runs.worker_plan import run_key
from hpc_agent.store import inbox, launches, workers
from hpc_agent.store.database import Store
from hpc_agent.store.inbox import Request
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.traces.span import Span, serving_key, trace_name
from hpc_agent.traces.tracer import SILENT, Tracer
from hpc_agent.workers import answers, intents, run_log
from hpc_agent.workers.changes import Changes

# DagsterRunStatus of runs that no worker has taken up.
_TO_BE_STARTED = frozenset({"QUEUED", "NOT_STARTED", "MANAGED", "STARTING"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequests:
    """Turns requests about runs into workers to submit and workers to end.

    ``clock`` measures waits, ``wall`` tells the time of day.
    """

    config: AgentConfig
    store: Store
    api: AgentApi
    preparation: JobPreparation
    termination: Termination
    changes: Changes
    needs: StepNeeds | None
    partitions: PartitionBook | None
    tracer: Tracer = SILENT
    clock: Callable[[], float]
    wall: Callable[[], float]

    async def launch(
        self, request: Request, run: RunToLaunch, *, is_late: bool = False
    ) -> Packed | None:
        """Note the intent to run a run. None: the answer follows when its job is submitted.

        A launch that comes late starts what is still to be started. Raises ControlPlaneError when
        it cannot be known whether something is, FilesUnavailableError when its directory cannot be
        written now, SchedulerUnavailableError when no partition can be chosen now.
        """
        known = await self.store.run(lambda db: workers.find(db, run_key(run.run_id)))
        if known is not None:
            return await self._launch_again(request, known)
        if is_late:
            outcome = await self._late_launch(request, run)
            if outcome is not None:
                return outcome
        began = self.wall()
        run, unknown = await self._with_steps(request, run)
        try:
            plan = await plan_attempt(
                self.store,
                self.config,
                run,
                deployment=request.deployment,
                partitions=self.partitions,
            )
            script = await self.preparation.prepare(plan)
        except (ConfigError, TemplateError) as error:
            return responses.failure(str(error))
        worker = Worker(
            key=plan.spec.key,
            kind=WorkerKind.RUN_WORKER,
            phase=Phase.INTENT,
            deployment=request.deployment,
            location=run.location,
            run_id=run.run_id,
            job_name=run.job_name,
            request_id=request.request_id,
            created_at=self.clock(),
            placement=plan.placement,
            pool=plan.pool,
            settings=options.to_json(plan.settings),
            likeness=await asyncio.to_thread(likeness_of, script, plan.spec.key),
        )

        wall = self.wall()
        self.tracer.add(_preparation(request, run, began, wall))

        def write(db: Database) -> None:
            launches.keep(db, run, request.deployment)
            workers.insert(db, worker)
            keep_template(db, worker, plan.spec.template, now=wall)
            for words in [*strange_tags(run.tags), *unknown, *_choices(plan.settings)]:
                run_log.say_line(db, worker, words, now=wall)
            inbox.hand_over(db, request.request_id, worker.key)

        await self.store.run(write)
        return None

    async def _with_steps(
        self, request: Request, run: RunToLaunch
    ) -> tuple[RunToLaunch, list[str]]:
        """Return a run with what its steps ask for, or a line that says why that is not known."""
        if self.needs is None:
            return run, []
        config = self.config
        instance = instance_ref(
            request.deployment, config.compute_logs, config.python_logs_of(run.location)
        )
        run, why_not = await self.needs.added_to(
            run,
            deployment=request.deployment,
            is_branch=request.is_branch_deployment,
            instance=instance,
        )
        return run, [f"The job gets what the run's tags ask for alone: {why_not}"] * bool(why_not)

    async def terminate(
        self, request: Request, run: RunToLaunch, *, is_late: bool = False
    ) -> Packed:
        """Ask a run's worker to end, whatever it is doing.

        A termination that comes late still ends; of a run that is over nothing is said any more.
        """
        if is_late and await self._status(request, run) in {None, *FINISHED}:
            return responses.success()
        now = self.clock()

        def write(db: Database) -> Worker | None:
            worker = workers.of_run(db, run.run_id)
            if worker is None:
                self._cancel_unknown(db, request, run, now)
                return None
            return self.termination.note(
                db,
                worker,
                TERMINATION_REQUESTED,
                is_canceling=run.status == "CANCELING",
                source="request",
            )

        worker = await self.store.run(write)
        if worker is not None:
            await self.termination.signal(worker)
        return responses.success()

    async def _late_launch(self, request: Request, run: RunToLaunch) -> Packed | None:
        """Return the answer to a launch that has expired; None when it is carried out all the same.

        The run itself says what became of it: the control plane may have given it up, canceled it,
        or handed it to another agent.
        """
        status = await self._status(request, run)
        if status in _TO_BE_STARTED:
            return None
        log.info("run %s: its launch has expired and it is %s: not started", run.run_id, status)
        if status == "CANCELING":
            now = self.clock()
            await self.store.run(lambda db: self._cancel_unknown(db, request, run, now))
        return responses.success()

    async def _status(self, request: Request, run: RunToLaunch) -> str | None:
        return await agent_calls.run_status(self.api, run.run_id, deployment=request.deployment)

    async def _launch_again(self, request: Request, worker: Worker) -> Packed | None:
        """The same launch was handed out twice: its job is there, or on its way."""
        if worker.phase is Phase.REFUSED:
            return responses.failure(worker.message)
        if worker.phase not in {Phase.INTENT, Phase.SUBMITTING}:
            return responses.success()
        wall = self.wall()

        def write(db: Database) -> None:
            if worker.request_id != request.request_id:
                answers.give(db, worker.request_id, responses.success(), now=wall)
            workers.change(
                db, worker.key, now=wall, source="request", request_id=request.request_id
            )
            inbox.hand_over(db, request.request_id, worker.key)

        await self.store.run(write)
        return None

    def _cancel_unknown(self, db: Database, request: Request, run: RunToLaunch, now: float) -> None:
        """No worker of ours: nothing can be running, so the run is canceled right away."""
        nobody = Worker(
            key=run_key(run.run_id),
            kind=WorkerKind.RUN_WORKER,
            phase=Phase.INTENT,
            deployment=request.deployment,
            location=run.location,
            run_id=run.run_id,
            job_name=run.job_name,
            created_at=now,
        )
        if workers.insert(db, nobody):
            self.changes.within(
                db,
                nobody.key,
                lambda worker, _: intents.withdraw(worker, now, terminate_at=now),
                source="request",
            )


def _preparation(request: Request, run: RunToLaunch, began: float, ended: float) -> Span:
    return Span(
        name="prepare job",
        trace=trace_name(run.run_id, request.request_id),
        key=f"preparing {request.request_id}",
        parent=serving_key(request.request_id),
        began_at=began,
        ended_at=ended,
    )


def _choices(settings: Sequence[Setting]) -> list[str]:
    """What the agent has chosen for the run, and where it says why."""
    return [
        f"The {setting.option} is {setting.value}, {setting.source}. "
        "`hpc-agent options explain RUN` says what else there was."
        for setting in settings
        if setting.why
    ]
