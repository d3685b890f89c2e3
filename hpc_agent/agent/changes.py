"""Applies observations to jobs: the store, the run's log and the bells, in one place."""

from __future__ import annotations

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.jobs.lifecycle import Changes
from hpc_agent.runs import telling
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job, JobKind, Phase


def apply_in(db: Database, job: Job, changes: Changes, *, source: str, now: float) -> Job:
    """Change a job and tell its run's log, as part of a transaction."""
    after = jobs.change(db, job.key, now=now, source=source, **changes)
    if job.kind is JobKind.RUN_WORKER:
        if after.phase.is_final and not job.phase.is_final:
            telling.ended(db, after, now=now)
        elif not after.phase.is_final:
            telling.changed(db, job, after, now=now)
    return after


async def apply(context: Context, job: Job, changes: Changes, *, source: str) -> Job:
    """Change a job; wake whoever acts on it. Nothing happens when there is nothing to change."""
    if not changes:
        return job
    now = context.clock()
    after = await context.store.run(lambda db: apply_in(db, job, changes, source=source, now=now))
    if job.kind is JobKind.RUN_WORKER:
        context.bells.report.ring()
    if after.phase.is_final:
        context.bells.conclude.ring()
    if after.kind is JobKind.CODE_SERVER and after.phase is not job.phase:
        context.bells.workspace.ring()
        context.bells.heartbeat.ring()
    if after.phase is Phase.INTENT:
        context.bells.submit.ring()
    return after
