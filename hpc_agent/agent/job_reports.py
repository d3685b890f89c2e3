"""What jobs say of themselves through the relay, and which tokens are theirs."""

from __future__ import annotations

import logging
import signal

from hpc_agent.agent.changes import apply
from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.errors import ControlPlaneError
from hpc_agent.jobs import lifecycle
from hpc_agent.jobs.lifecycle import ExitRecord
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.relay.identity import JobIdentity, JobReport, ReportAnswer
from hpc_agent.runs.conclusion import FINISHED
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job, JobKind

log = logging.getLogger(__name__)

PROCEED = ReportAnswer(proceed=True)


class JobReports:
    """The agent's side of the relay."""

    def __init__(self, context: Context, tokens: JobTokens) -> None:
        self._context = context
        self._tokens = tokens

    async def identify(self, token: str) -> JobIdentity | None:
        """Return the job of a token; a job that is concluded has none any more."""
        key = self._tokens.key(token)
        if key is None:
            return None
        job = await self._context.store.run(lambda db: jobs.find(db, key))
        if job is None or job.concluded_at is not None:
            return None
        return JobIdentity(
            key=job.key,
            kind="run_worker" if job.kind is JobKind.RUN_WORKER else "code_server",
            deployment=job.deployment,
            run_id=job.run_id,
            location=job.location or "",
        )

    async def receive(self, identity: JobIdentity, report: JobReport) -> ReportAnswer:
        """Take a report; a start is answered with whether the job may go on."""
        context = self._context
        job = await context.store.run(lambda db: jobs.find(db, identity.key))
        if job is None:
            return ReportAnswer(proceed=False, reason="the agent does not know this job")
        if report.event == "exited":
            await self._exited(job, report)
            return PROCEED
        if report.event == "started":
            refusal = await self._refusal(job)
            if refusal is not None:
                log.info("%s: not started: %s", job.key, refusal)
                return ReportAnswer(proceed=False, reason=refusal)
        changes = lifecycle.observe_start(job, report.hostname, context.clock())
        await apply(context, job, changes, source="node")
        if report.event == "ready":
            context.bells.workspace.ring()
        return PROCEED

    async def _exited(self, job: Job, report: JobReport) -> None:
        record = ExitRecord.from_json(report.exit or {})
        if record.signal == signal.SIGKILL and job.terminate_at is None:
            # Who killed it (out of memory, timeout, an administrator) only the scheduler knows.
            self._context.bells.watch.ring()
            return
        changes = lifecycle.observe_exit(job, record, self._context.clock())
        await apply(self._context, job, changes, source="node")

    async def _refusal(self, job: Job) -> str | None:
        """Say why a job must not run, if so: what has waited may have become pointless."""
        if job.phase.is_final or job.terminate_at is not None:
            return "it was asked to end before it started"
        if job.kind is JobKind.CODE_SERVER:
            return None
        try:
            status = await agent_calls.run_status(
                self._context.api, str(job.run_id), deployment=job.deployment
            )
        except ControlPlaneError as error:
            # It will run against the spool; should the run have ended meanwhile, its own code asks.
            log.warning("%s: the run's status is not known: %s", job.key, error)
            return None
        if status is None:
            return "the run was deleted"
        if status in FINISHED or status == "CANCELING":
            return f"the run is {status} already"
        return None
