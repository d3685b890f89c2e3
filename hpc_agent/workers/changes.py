"""Applies observations to jobs: the store, the run's log and the bells, in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import responses
from hpc_agent.runs import answers, run_log
from hpc_agent.store import jobs
from hpc_agent.store.jobs import Job, JobKind
from hpc_agent.workers import evidence
from hpc_agent.workers.evidence import Changes

Observe = Callable[[Job], Changes]

# So that an array of a thousand does not keep the store from all others for long.
_JOBS_PER_TRANSACTION = 200


async def apply(context: Context, key: str, observe: Observe, *, source: str) -> Job:
    """Change a job, and tell and wake whoever it concerns, in one transaction.

    ``observe`` gets the job as it is then: between an observation and its effect, another one may
    have ended the job.
    """
    (job,) = await apply_to_all(context, [key], observe, source=source)
    return job


async def apply_to_all(
    context: Context, keys: Sequence[str], observe: Observe, *, source: str
) -> list[Job]:
    """Change many jobs as ``apply`` does one, in a few transactions."""
    now = context.clock()
    changed: list[Job] = []
    for first in range(0, len(keys), _JOBS_PER_TRANSACTION):
        some = keys[first : first + _JOBS_PER_TRANSACTION]
        pairs = await context.store.run(
            lambda db, some=some: [  # type: ignore[misc]
                _change(db, context, key, observe, now=now, source=source) for key in some
            ]
        )
        for before, after in pairs:
            if before != after:
                _ring(context, before, after)
            changed.append(after)
    return changed


def _change(
    db: Database, context: Context, key: str, observe: Observe, *, now: float, source: str
) -> tuple[Job, Job]:
    before = jobs.get(db, key)
    changes = observe(before)
    if not changes:
        return before, before
    after = jobs.change(db, key, now=now, source=source, **changes)
    if after.kind is JobKind.PACK:
        _take_along(db, after, now, source)
    if after.kind is JobKind.RUN_WORKER:
        _tell(db, context, before, after, now)
    return before, after


def _take_along(db: Database, pack: Job, now: float, source: str) -> None:
    for job in jobs.in_pack(db, pack.key):
        changes = evidence.observe_pack(job, pack, now)
        if changes:
            jobs.change(db, job.key, now=now, source=source, **changes)


def _tell(db: Database, context: Context, before: Job, after: Job, now: float) -> None:
    if before.job_id is None and after.job_id is not None:
        run_log.submitted(
            db,
            after,
            scheduler=context.scheduler.name.capitalize(),
            agent_id=context.agent_id,
            agent_label=context.config.label,
            now=now,
        )
        answers.give(db, after.request_id, responses.success(), now=now)
    if after.phase.is_final and not before.phase.is_final:
        run_log.ended(db, after, now=now)
    elif not after.phase.is_final:
        run_log.changed(db, before, after, now=now)


def _ring(context: Context, before: Job, after: Job) -> None:
    bells = context.bells
    if after.kind is JobKind.RUN_WORKER:
        bells.report.ring()
    elif after.phase is not before.phase:
        bells.workspace.ring()
        bells.heartbeat.ring()
    if before.job_id is None and after.job_id is not None:
        bells.watch.ring()
        bells.cancel.ring()
    if after.phase.is_final:
        bells.conclude.ring()
    else:
        bells.submit.ring()
