"""What jobs say of themselves through the relay, and which tokens are theirs."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.relay.identity import JobIdentity, JobReport, ReportAnswer
from hpc_agent.runs import run_log
from hpc_agent.runs.starts import Starts
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job, JobKind
from hpc_agent.workers import evidence
from hpc_agent.workers.changes import apply
from hpc_agent.workers.evidence import Changes, ExitRecord

log = logging.getLogger(__name__)

PROCEED = ReportAnswer(proceed=True)
_BELIEVED_SECONDS = 30.0
# A node program repeats its last report this long; its job may be concluded by then.
_LAST_WORDS_SECONDS = 60.0


class JobReports:
    """The agent's side of the relay; ``spooled`` says whether it holds events of a run."""

    def __init__(
        self, context: Context, tokens: JobTokens, *, spooled: Callable[[str], bool]
    ) -> None:
        self._context = context
        self._tokens = tokens
        self._starts = Starts(context, spooled)
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
        job = await self._context.store.run(lambda db: _newest_attempt(db, key))
        if job is None or (job.concluded_at or now) < now - _LAST_WORDS_SECONDS:
            self._known.pop(key, None)
            return None
        identity = _identity(job)
        self._known[key] = now + _BELIEVED_SECONDS, identity
        return identity

    def forget(self, key: str) -> None:
        """Believe nothing of a job any more: another attempt has taken its place."""
        self._known.pop(key, None)

    async def receive(self, identity: JobIdentity, report: JobReport) -> ReportAnswer:
        """Take a report; a start is answered with whether the job may go on."""
        context = self._context
        job = await context.store.run(lambda db: jobs.find(db, identity.key))
        if job is None:
            return ReportAnswer(proceed=False, reason="the agent does not know this job")
        if report.restart_count < job.restart_count:
            return ReportAnswer(proceed=False, reason="a later start of this job took its place")
        if report.event == "exited":
            await self._exited(job, report)
            return PROCEED
        answer = PROCEED
        if report.event == "started":
            answer = await self._starts.answer(job, report)
            if not answer.proceed:
                log.info("%s: not started: %s", job.key, answer.reason)
                return answer
        await self._started(job, report, resumes=answer.resume)
        if report.event == "ready":
            context.bells.workspace.ring()
        return answer

    async def _started(self, job: Job, report: JobReport, *, resumes: bool) -> None:
        context = self._context
        now = context.clock()

        def observe(job: Job) -> Changes:
            return evidence.observe_start(
                job,
                report.hostname,
                report.slurm_job_id,
                now,
                restart_count=report.restart_count,
            )

        after = await apply(context, job.key, observe, source="node")
        if after.restart_count > job.restart_count:
            self.forget(job.key)  # what the relay lets through depends on it
            if after.kind is JobKind.RUN_WORKER:
                await context.store.run(
                    lambda db: run_log.restarted(db, after, resumes=resumes, now=now)
                )
                context.bells.report.ring()

    async def _exited(self, job: Job, report: JobReport) -> None:
        record = ExitRecord.from_json(report.exit or {})
        was_ended = record.outcome == "terminated" or record.signal == signal.SIGKILL
        if was_ended and job.terminate_at is None and not record.is_out_of_time:
            # Why it was ended (memory, preemption, an administrator) only the scheduler knows, and
            # that only when the node program has gone.
            await apply(self._context, job.key, evidence.observe_leaving, source="node")
            self._context.bells.watch.ring()
            return
        now = self._context.clock()
        await apply(
            self._context,
            job.key,
            lambda job: evidence.observe_exit(job, record, now),
            source="node",
        )


def _newest_attempt(db: Database, key: str) -> Job | None:
    """Return a job unless a later one goes on with its run."""
    job = jobs.find(db, key)
    if job is None or job.run_id is None:
        return job
    newest = jobs.of_run(db, job.run_id)
    return job if newest is None or newest.key == key else None


def _identity(job: Job) -> JobIdentity:
    return JobIdentity(
        key=job.key,
        kind="run_worker" if job.kind is JobKind.RUN_WORKER else "code_server",
        deployment=job.deployment,
        run_id=job.run_id,
        location=job.location or "",
        restart_count=job.restart_count,
    )
