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
_BELIEVED_SECONDS = 30.0
# A node program repeats its last report this long; its job may be concluded by then.
_LAST_WORDS_SECONDS = 60.0


class JobReports:
    """The agent's side of the relay."""

    def __init__(self, context: Context, tokens: JobTokens) -> None:
        self._context = context
        self._tokens = tokens
        self._known: dict[str, tuple[float, JobIdentity]] = {}

    async def identify(self, token: str) -> JobIdentity | None:
        """Return the job of a token; a job that was concluded a while ago has none any more.

        Asked for every request of every job, so what was read is believed for a while.
        """
        key = self._tokens.key(token)
        if key is None:
            return None
        now = self._context.clock()
        known = self._known.get(key)
        if known is not None and now < known[0]:
            return known[1]
        job = await self._context.store.run(lambda db: jobs.find(db, key))
        if job is None or (job.concluded_at or now) < now - _LAST_WORDS_SECONDS:
            self._known.pop(key, None)
            return None
        identity = _identity(job)
        self._known[key] = now + _BELIEVED_SECONDS, identity
        return identity

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
        now = context.clock()
        await apply(
            context,
            job.key,
            lambda job: lifecycle.observe_start(job, report.hostname, report.slurm_job_id, now),
            source="node",
        )
        if report.event == "ready":
            context.bells.workspace.ring()
        return PROCEED

    async def _exited(self, job: Job, report: JobReport) -> None:
        record = ExitRecord.from_json(report.exit or {})
        was_ended = record.outcome == "terminated" or record.signal == signal.SIGKILL
        if was_ended and job.terminate_at is None:
            # Why it was ended (walltime, memory, an administrator) only the scheduler knows.
            self._context.bells.watch.ring()
            return
        now = self._context.clock()
        await apply(
            self._context,
            job.key,
            lambda job: lifecycle.observe_exit(job, record, now),
            source="node",
        )

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


def _identity(job: Job) -> JobIdentity:
    return JobIdentity(
        key=job.key,
        kind="run_worker" if job.kind is JobKind.RUN_WORKER else "code_server",
        deployment=job.deployment,
        run_id=job.run_id,
        location=job.location or "",
    )
