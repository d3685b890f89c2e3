"""LAUNCH_RUN and TERMINATE_RUN: from a request to an intent that survives any crash."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import Any

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import agent_calls, responses
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.dagster_plus.serdes import Packed
from hpc_agent.errors import ConfigError, SchedulerError, TemplateError
from hpc_agent.jobs import options
from hpc_agent.jobs.array_script import likeness_of
from hpc_agent.runs import run_log
from hpc_agent.runs.conclusion import FINISHED
from hpc_agent.runs.planning import plan_attempt
from hpc_agent.runs.worker_plan import run_key
from hpc_agent.store import jobs, launches
from hpc_agent.store.inbox import Request
from hpc_agent.store.jobs import Job, JobKind, Phase

# DagsterRunStatus of runs that no worker has taken up.
_TO_BE_STARTED = frozenset({"QUEUED", "NOT_STARTED", "MANAGED", "STARTING"})

log = logging.getLogger(__name__)


class RunRequests:
    """Turns requests about runs into jobs to submit and jobs to end."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def launch(
        self, request: Request, run: RunToLaunch, *, is_late: bool = False
    ) -> Packed | None:
        """Note the intent to run a run. None: the answer follows when its job is submitted.

        A launch that comes late starts what is still to be started. Raises ControlPlaneError when
        it cannot be known whether something is.
        """
        context = self._context
        now = context.clock()
        known = await context.store.run(lambda db: jobs.find(db, run_key(run.run_id)))
        if known is not None:
            return await self._launch_again(request, known)
        if is_late:
            outcome = await self._late_launch(request, run)
            if outcome is not None:
                return outcome
        try:
            plan = await plan_attempt(context, run, deployment=request.deployment)
            script = await context.preparation.prepare(plan)
        except (ConfigError, TemplateError) as error:
            return responses.failure(str(error))
        job = Job(
            key=plan.spec.key,
            kind=JobKind.RUN_WORKER,
            phase=Phase.INTENT,
            deployment=request.deployment,
            location=run.location,
            run_id=run.run_id,
            job_name=run.job_name,
            request_id=request.request_id,
            created_at=now,
            settings=options.to_json(plan.settings),
            likeness=await asyncio.to_thread(likeness_of, script, plan.spec.key),
        )

        def write(db: Database) -> None:
            launches.keep(db, run.run_id, request.deployment, asdict(run))
            jobs.insert(db, job)

        await context.store.run(write)
        context.bells.submit.ring()
        return None

    async def terminate(
        self, request: Request, run: RunToLaunch, *, is_late: bool = False
    ) -> Packed:
        """Ask a run's job to end: by signal and after a grace period by scancel.

        Late or not, a run that goes on is ended; of one that is over nothing is said any more.
        """
        context = self._context
        if is_late and await self._status(request, run) in {None, *FINISHED}:
            return responses.success()
        now = context.clock()
        grace = context.config.runs.grace_seconds

        def write(db: Database) -> Job | None:
            job = jobs.of_run(db, run.run_id)
            # One that is over but not concluded yet could still be followed by another attempt.
            if job is None or job.concluded_at is not None or job.terminate_at is not None:
                return job
            run_log.say_line(db, job, "Termination requested; ending the run's job.", now=now)
            if run.status != "CANCELING":
                run_log.canceling(db, job, now=now)
            return jobs.change(db, job.key, now=now, source="request", **_ending(job, now, grace))

        job = await context.store.run(write)
        if job is None:
            await self._cancel_unknown(request, run, now)
        elif job.phase is Phase.RUNNING and job.job_id is not None:
            await self._signal(job.job_id)
        for bell in (context.bells.cancel, context.bells.conclude, context.bells.report):
            bell.ring()
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
            await self._cancel_unknown(request, run, self._context.clock())
            self._context.bells.conclude.ring()
        return responses.success()

    async def _status(self, request: Request, run: RunToLaunch) -> str | None:
        return await agent_calls.run_status(
            self._context.api, run.run_id, deployment=request.deployment
        )

    async def _signal(self, job_id: str) -> None:
        """Let the run worker close its run; should that fail, scancel follows all the same.

        SIGTERM would not say who asks: Slurm sends it to preempt, and then the run may go on.
        """
        try:
            await self._context.scheduler.signal(job_id, "INT")
        except SchedulerError as error:
            log.warning("job %s could not be signalled: %s", job_id, error)

    async def _launch_again(self, request: Request, job: Job) -> Packed | None:
        """The same launch was handed out twice: its job is there, or on its way."""
        if job.phase in {Phase.INTENT, Phase.SUBMITTING}:
            await self._context.store.run(
                lambda db: jobs.change(
                    db,
                    job.key,
                    now=self._context.clock(),
                    source="request",
                    request_id=request.request_id,
                )
            )
            self._context.bells.submit.ring()
            return None
        if job.phase is Phase.REFUSED:
            return responses.failure(job.message)
        return responses.success()

    async def _cancel_unknown(self, request: Request, run: RunToLaunch, now: float) -> None:
        """No job of ours: nothing can be running, so the run is canceled right away."""
        nobody = Job(
            key=run_key(run.run_id),
            kind=JobKind.RUN_WORKER,
            phase=Phase.WITHDRAWN,
            deployment=request.deployment,
            location=run.location,
            run_id=run.run_id,
            job_name=run.job_name,
            created_at=now,
            ended_at=now,
            terminate_at=now,
        )
        await self._context.store.run(lambda db: jobs.insert(db, nobody))


def _ending(job: Job, now: float, grace: float) -> dict[str, Any]:
    if job.phase is Phase.INTENT:
        return {"phase": Phase.WITHDRAWN, "ended_at": now, "terminate_at": now}
    # A few seconds more than the node program's own grace: it closes the run and goes by itself.
    deadline = now + grace + 5.0 if job.phase is Phase.RUNNING else now
    return {"terminate_at": deadline}
