"""What a job that has started may do: run, go on with a run that had started, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from hpc_agent.config.retries import Retries
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.errors import ConfigError, ControlPlaneError, ControlPlaneUnavailableError
from hpc_agent.relay.identity import JobReport, ReportAnswer
from hpc_agent.runs.attempts import Planner
from hpc_agent.runs.last_word import FINISHED
from hpc_agent.runs.recovery import may_restart
from hpc_agent.store import steps
from hpc_agent.store.database import Store
from hpc_agent.store.workers import Worker, WorkerKind

log = logging.getLogger(__name__)

PROCEED = ReportAnswer(proceed=True)
GO_ON = ReportAnswer(proceed=True, resume=True)
# DagsterRunStatus from RUN_START on: something of the run may have been executed.
_STARTED = "STARTED"


class Starts:
    """Answers the reports of starts; what has waited may have become pointless.

    ``planners`` know the policies of what was asked for, ``retries`` hold where they do not.
    ``spooled`` says whether the relay still holds events of a run: its status may be older.
    """

    def __init__(
        self,
        *,
        api: AgentApi,
        store: Store,
        planners: Mapping[WorkerKind, Planner],
        retries: Retries,
        spooled: Callable[[str], bool],
    ) -> None:
        self._api = api
        self._store = store
        self._planners = planners
        self._retries = retries
        self._spooled = spooled

    async def answer(self, worker: Worker, report: JobReport) -> ReportAnswer:
        """Say what a job does now.

        Raises ControlPlaneError when that depends on the run and nobody can say how the run
        stands: the node program asks again.
        """
        if worker.phase.is_final or worker.terminate_at is not None:
            return stop("it was asked to end before it started")
        if is_of_another(worker, report):
            return stop(f"job {worker.job_id} has this work already")
        if not worker.kind.is_of_run:
            return PROCEED
        # Slurm requeues a job that it could not start as well: then nothing of it has run.
        is_restart = report.restart_count > 0 and worker.is_claimed
        is_later = worker.attempt > 1 or is_restart
        if is_restart and (refusal := await self._no_restart(worker, report)) is not None:
            return stop(refusal)
        if is_later and self._spooled(str(worker.run_id)):
            raise ControlPlaneUnavailableError(
                f"events of run {worker.run_id} wait for the control plane: only with them it is "
                "known whether the run was started"
            )
        if is_later and worker.step is not None and await self._is_done(worker):
            return stop("an earlier job of it has done it")
        return await self._by_the_run(worker, is_later=is_later)

    async def _by_the_run(self, worker: Worker, *, is_later: bool) -> ReportAnswer:
        try:
            status = await agent_calls.run_status(
                self._api, str(worker.run_id), deployment=worker.deployment
            )
        except ControlPlaneError as error:
            if is_later:
                raise
            # It will run against the spool; should the run have ended meanwhile, its own code asks.
            log.warning("%s: the run's status is not known: %s", worker.key, error)
            return PROCEED
        if status is None:
            return stop("the run was deleted")
        if status in FINISHED or status == "CANCELING":
            return stop(f"the run is {status} already")
        goes_on = is_later and status == _STARTED and worker.kind is WorkerKind.RUN_WORKER
        return GO_ON if goes_on else PROCEED

    async def _is_done(self, worker: Worker) -> bool:
        """Whether the steps of a job have ended by their events; a command is no step of Dagster's.

        The job may have been ended between its last event and its own end.
        """
        names = await self._store.run(lambda db: steps.dagster_steps(db, worker.key))
        if not names:
            return False
        ended = await agent_calls.ended_attempts(
            self._api, str(worker.run_id), names, deployment=worker.deployment
        )
        return all(ended.get(name, 0) > worker.step_attempt for name in names)

    async def _no_restart(self, worker: Worker, report: JobReport) -> str | None:
        """Say why a job that Slurm has requeued must not go on, if so."""
        try:
            policies = await self._planners[worker.kind].policies_of(worker)
        except ConfigError as error:
            return str(error)
        return may_restart(policies or self._retries, report.restart_count)


def is_of_another(worker: Worker, report: JobReport) -> bool:
    """Whether a report comes from another job than the one that holds the worker's claim."""
    if not worker.is_claimed or worker.job is None or worker.pack_key is not None:
        return False
    return bool(report.slurm_job_id) and report.slurm_job_id != worker.job.job_id


def stop(reason: str) -> ReportAnswer:
    """Return the answer to a job that must not run."""
    return ReportAnswer(proceed=False, reason=reason)
