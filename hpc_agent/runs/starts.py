"""What a job that has started may do: run, go on with a run that had started, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ConfigError, ControlPlaneError, ControlPlaneUnavailableError
from hpc_agent.relay.identity import JobReport, ReportAnswer
from hpc_agent.runs.conclusion import FINISHED
from hpc_agent.runs.recovery import may_restart, policies_of
from hpc_agent.store import launches
from hpc_agent.store.jobs import Job, JobKind

log = logging.getLogger(__name__)

PROCEED = ReportAnswer(proceed=True)
GO_ON = ReportAnswer(proceed=True, resume=True)
# DagsterRunStatus from RUN_START on: something of the run may have been executed.
_STARTED = "STARTED"


class Starts:
    """Answers the reports of starts; what has waited may have become pointless.

    ``spooled`` says whether the relay still holds events of a run: its status may be older.
    """

    def __init__(self, context: Context, spooled: Callable[[str], bool]) -> None:
        self._context = context
        self._spooled = spooled

    async def answer(self, job: Job, report: JobReport) -> ReportAnswer:
        """Say what a job does now.

        Raises ControlPlaneError when that depends on the run and nobody can say how the run
        stands: the node program asks again.
        """
        if job.phase.is_final or job.terminate_at is not None:
            return _stop("it was asked to end before it started")
        if job.kind is not JobKind.RUN_WORKER:
            return PROCEED
        is_later = job.attempt > 1 or report.restart_count > 0
        refusal = await self._no_restart(job, report)
        if refusal is not None:
            return _stop(refusal)
        if is_later and self._spooled(str(job.run_id)):
            raise ControlPlaneUnavailableError(
                f"events of run {job.run_id} wait for the control plane: only with them it is "
                "known whether the run was started"
            )
        return await self._by_the_run(job, is_later=is_later)

    async def _by_the_run(self, job: Job, *, is_later: bool) -> ReportAnswer:
        try:
            status = await agent_calls.run_status(
                self._context.api, str(job.run_id), deployment=job.deployment
            )
        except ControlPlaneError as error:
            if is_later:
                raise
            # It will run against the spool; should the run have ended meanwhile, its own code asks.
            log.warning("%s: the run's status is not known: %s", job.key, error)
            return PROCEED
        if status is None:
            return _stop("the run was deleted")
        if status in FINISHED or status == "CANCELING":
            return _stop(f"the run is {status} already")
        return GO_ON if is_later and status == _STARTED else PROCEED

    async def _no_restart(self, job: Job, report: JobReport) -> str | None:
        """Say why a job that Slurm has requeued must not go on, if so."""
        if report.restart_count == 0:
            return None
        content = await self._context.store.run(lambda db: launches.find(db, str(job.run_id)))
        tags = RunToLaunch(**content).tags if content else {}
        try:
            policies = policies_of(self._context.config.runs.retries, tags)
        except ConfigError as error:
            return str(error)
        return may_restart(policies, report.restart_count)


def _stop(reason: str) -> ReportAnswer:
    return ReportAnswer(proceed=False, reason=reason)
