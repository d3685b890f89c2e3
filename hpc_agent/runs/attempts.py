"""The next attempt of a run whose job Slurm has ended: a new job, where the policy wants one."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ConfigError, TemplateError
from hpc_agent.jobs import options
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.runs import run_log
from hpc_agent.runs.planning import overrides_of, plan_attempt
from hpc_agent.runs.recovery import Asked, NextAttempt, NoMore, cause_of, decide, policies_of
from hpc_agent.store import jobs, launches
from hpc_agent.store.jobs import Job, JobKind, Phase

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """A job that goes on with a run, prepared but not yet an intent."""

    job: Job
    decision: NextAttempt


class Attempts:
    """Prepares further attempts, and makes intents of them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def successor_of(self, job: Job) -> Successor | NoMore:
        """Decide on the next attempt and write its job directory, which may be repeated.

        NoMore has the reason for the user where the policy wanted an attempt and there is none.
        """
        if cause_of(job) is None:
            return NoMore()
        content = await self._context.store.run(lambda db: launches.find(db, str(job.run_id)))
        if content is None:
            return NoMore()
        run = RunToLaunch(**content)
        try:
            decision = await self._decide(job, run)
            if isinstance(decision, NoMore):
                return decision
            plan = await self._plan(job, run, decision)
            await self._context.preparation.prepare(plan)
        except (ConfigError, TemplateError) as error:
            return NoMore(reason=f"there is no further attempt: {error}")
        return Successor(job=self._intent(job, plan, decision), decision=decision)

    def begin(self, db: Database, ended: Job, successor: Successor, *, now: float) -> None:
        """Make an intent of a prepared attempt, as part of a transaction, and tell the run."""
        if jobs.insert(db, successor.job):
            run_log.next_attempt(db, ended, successor.decision, now=now)
            log.info(
                "run %s: job %s ended %s; attempt %d of %d",
                ended.run_id,
                ended.job_id,
                ended.state.value,
                successor.decision.number,
                successor.decision.limit,
            )

    async def _decide(self, job: Job, run: RunToLaunch) -> NextAttempt | NoMore:
        policies = policies_of(self._context.config.runs.retries, run.tags)
        plan = await plan_attempt(
            self._context,
            run,
            deployment=job.deployment,
            attempt=job.attempt,
            overrides=overrides_of(job),
        )
        asked = Asked(
            options={setting.option: setting.value for setting in plan.settings},
            time_limit_seconds=_time_limit(job),
        )
        return decide(job, policies, asked)

    async def _plan(self, job: Job, run: RunToLaunch, decision: NextAttempt) -> JobPlan:
        return await plan_attempt(
            self._context,
            run,
            deployment=job.deployment,
            attempt=decision.number,
            overrides=overrides_of(job) | decision.overrides,
        )

    def _intent(self, job: Job, plan: JobPlan, decision: NextAttempt) -> Job:
        return Job(
            key=plan.spec.key,
            kind=JobKind.RUN_WORKER,
            phase=Phase.INTENT,
            deployment=job.deployment,
            location=job.location,
            run_id=job.run_id,
            job_name=job.job_name,
            created_at=self._context.clock(),
            attempt=decision.number,
            overrides=json.dumps(overrides_of(job) | decision.overrides),
            settings=options.to_json(plan.settings),
        )


def _time_limit(job: Job) -> float | None:
    """Return the limit that Slurm gave: whole minutes, from a start that it knows in seconds."""
    if job.deadline_at is None or job.started_at is None:
        return None
    return max(1, round((job.deadline_at - job.started_at) / 60)) * 60.0
