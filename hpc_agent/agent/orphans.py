"""The orphans loop: jobs whose runs are over in the control plane are ended.

Whoever marks a run as canceled while its job waits in the queue (the UI offers nothing else for a
run that is starting) or lets a monitor fail it, sends no request about it.
"""

from __future__ import annotations

import logging

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.runs import run_log
from hpc_agent.store import jobs, tracking
from hpc_agent.store.jobs import Job, Phase

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 10.0
_RUNS_AT_ONCE = 200
# Far longer than any grace period.
_FORGET_SECONDS = 24 * 3600.0


class OrphansLoop:
    """Asks for the runs of live jobs, so many at once, and ends the jobs of finished ones."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last_asked = ""
        self._seen_over: dict[str, float] = {}

    async def step(self) -> float:
        """Look at the next runs."""
        context = self._context
        asked = await context.store.run(
            lambda db: tracking.runs_to_ask_for(db, self._last_asked, _RUNS_AT_ONCE)
        )
        if not asked:
            return _INTERVAL_SECONDS
        workers = {str(job.run_id): job for job in asked}
        self._last_asked = str(asked[-1].run_id)
        self._forget(context.clock())
        # Grouped by deployment, since runs live in one.
        for deployment in {job.deployment for job in asked}:
            mine = [str(job.run_id) for job in asked if job.deployment == deployment]
            over = await agent_calls.finished_runs(context.api, mine, deployment=deployment)
            for run_id in over:
                if not self._may_end_by_itself(workers[run_id]):
                    await self._end(workers[run_id], over[run_id])
        return _INTERVAL_SECONDS

    def _forget(self, now: float) -> None:
        self._seen_over = {
            run_id: at for run_id, at in self._seen_over.items() if now - at < _FORGET_SECONDS
        }

    def _may_end_by_itself(self, job: Job) -> bool:
        """A run worker that has just closed its run is about to go."""
        if job.phase is not Phase.RUNNING:
            return False
        now = self._context.clock()
        first_seen = self._seen_over.setdefault(str(job.run_id), now)
        return now - first_seen < self._context.config.runs.grace_seconds

    async def _end(self, job: Job, status: str) -> None:
        context = self._context
        now = context.clock()

        def write(db: Database) -> None:
            if job.phase is Phase.QUEUED:
                run_log.say_line(
                    db, job, f"The run is {status}; cancelling job {job.job_id}.", now=now
                )
            jobs.change(db, job.key, now=now, source="control plane", terminate_at=now)

        await context.store.run(write)
        log.info("%s: its run is %s, so job %s is ended", job.key, status, job.job_id)
        context.bells.cancel.ring()
        context.bells.report.ring()
