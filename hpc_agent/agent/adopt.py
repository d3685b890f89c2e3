"""Jobs of this agent that its state database knows nothing of: it is an older one, or a new one.

Whose job it is, its directory says; that it belongs to a run the control plane is asked for, since
user code can write into the directory. A run's key is made of its id, so nobody can name another.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import HpcAgentError, UsageError
from hpc_agent.runs.worker_plan import run_key
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.steps.planning import STEP_KEY_PREFIX
from hpc_agent.store import launches, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import intents, run_log
from hpc_agent.workers.adoption import keys_of

_KEY = re.compile(r"(run|stp|srv|pck|arr)-[0-9a-f]{20}")
_SERVERS = ("srv-", "pck-")
_ARRAY = "arr-"
_MOST_ATTEMPTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownJob:
    """A job in the queue that nobody here knows of; ``why_not`` is why it cannot be adopted."""

    job_id: str
    state: str
    key: str
    run_id: str | None = None
    deployment: str | None = None
    is_adopted: bool = False
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """Whose an unknown job is."""

    run: RunToLaunch
    deployment: str
    key: str
    attempt: int


class _NotAdoptableError(HpcAgentError):
    """Says why."""


async def adopt(context: Context, job_ids: Sequence[str] | None, *, dry_run: bool) -> str:
    """Take over unknown jobs, all of them or these; return JSON rows of UnknownJob.

    Raises SchedulerError when the queue cannot be looked at, UsageError for a job that is not
    unknown.
    """
    unknown = await find_unknown(context)
    strange = set(job_ids or ()) - {record.job_id for record in unknown}
    if strange:
        raise UsageError(
            f"no unknown job of this agent in the queue: {', '.join(sorted(strange))} "
            "(`hpc-agent adopt` lists them, `hpc-agent jobs` those that are known)"
        )
    wanted = [record for record in unknown if job_ids is None or record.job_id in job_ids]
    rows = [await _judge(context, record, dry_run=dry_run) for record in wanted]
    return json.dumps([asdict(row) for row in rows])


async def find_unknown(context: Context) -> list[JobRecord]:
    """Return the jobs in the queue that are this agent's, by their keys, and that it does not know.

    Those of another agent of this account have their directories elsewhere. Raises SchedulerError.
    """
    work = context.preparation.work
    look = await context.scheduler.queue()
    known = await context.store.run(workers.keys)
    there = set(await asyncio.to_thread(work.files.names, work.jobs))

    def is_unknown(record: JobRecord) -> bool:
        keys = _keys_of(record)
        is_here = PurePosixPath(record.script).is_relative_to(work.jobs) or (
            not record.script and not there.isdisjoint(keys)
        )
        return bool(keys) and is_here and known.isdisjoint(keys)

    return [each for each in look.records if not each.state.is_final and is_unknown(each)]


async def _judge(context: Context, record: JobRecord, *, dry_run: bool) -> UnknownJob:
    row = UnknownJob(job_id=record.job_id, state=record.state.value, key=_key_of(record))
    try:
        found = await _whose(context, record)
    except _NotAdoptableError as error:
        return replace(row, why_not=str(error))
    row = replace(row, key=found.key, run_id=found.run.run_id, deployment=found.deployment)
    if dry_run:
        return row
    await _take_over(context, record, found)
    return replace(row, is_adopted=True)


async def _whose(context: Context, record: JobRecord) -> _Found:
    key = _key_of(record)
    if key.startswith(_SERVERS):
        raise _NotAdoptableError(
            f"a code server: the agent has others by now; `scancel {record.job_id}` ends this one"
        )
    if key.startswith(STEP_KEY_PREFIX):
        raise _NotAdoptableError(
            "the job of a step: its run asks for it again, and the next job of it finds the claim "
            "of this one, if it has begun"
        )
    own, run_id = await asyncio.to_thread(_named_in_directory, context, key, record.job_id)
    attempts = {run_key(run_id, number): number for number in range(1, _MOST_ATTEMPTS)}
    if own not in attempts or (own != key and not key.startswith(_ARRAY)):
        raise _NotAdoptableError(f"its directory speaks of run {run_id}, whose job it is not")
    newest = await context.store.run(lambda db: workers.of_run(db, run_id))
    if newest is not None:
        raise _NotAdoptableError(
            f"run {run_id} has {newest.key} (job {newest.job_id or 'not submitted yet'}) here: "
            f"`scancel {record.job_id}` ends this one"
        )
    for deployment in context.config.control_plane.deployments:
        run = await agent_calls.run_by_id(context.api, run_id, deployment=deployment)
        if run is not None:
            break
    else:
        raise _NotAdoptableError(f"no deployment that this agent serves has run {run_id}")
    if run.status in agent_calls.FINISHED_STATUSES:
        raise _NotAdoptableError(
            f"run {run_id} is {run.status}: `scancel {record.job_id}` ends its job"
        )
    return _Found(run=run, deployment=deployment, key=own, attempt=attempts[own])


def _named_in_directory(context: Context, key: str, job_id: str) -> tuple[str, str]:
    """Return the key and the run that a job's ``spec.json`` names."""
    work = context.preparation.work
    directory = work.of(key)
    if key.startswith(_ARRAY):  # a link to the directory of the task
        directory /= job_id.partition("_")[2]
    try:
        content = json.loads(work.files.read(directory / "spec.json", within=directory))
        own, run_id = content["key"], json.loads(content["argv"][-1])["pipeline_run_id"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _NotAdoptableError(f"{directory}/spec.json names no run: {error}") from None
    if not (isinstance(own, str) and isinstance(run_id, str)):
        raise _NotAdoptableError(f"{directory}/spec.json names no run")
    return own, run_id


async def _take_over(context: Context, record: JobRecord, found: _Found) -> None:
    """Write down the worker and its job, as if the agent had submitted it just now."""
    now, wall, run = context.clock(), context.wall(), found.run
    array_key = _key_of(record) if _key_of(record) != found.key else None
    worker = Worker(
        key=found.key,
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.INTENT,
        deployment=found.deployment,
        location=run.location,
        run_id=run.run_id,
        job_name=run.job_name,
        created_at=now,
        attempt=found.attempt,
        array_key=array_key,
        array_index=int(record.job_id.partition("_")[2]) if array_key else None,
    )

    def write(db: Database) -> None:
        if not workers.insert(db, worker):
            return
        launches.keep(db, run, found.deployment)
        line = f"The agent has found job {record.job_id} of the run, and takes it over."
        run_log.say_line(db, worker, line, now=wall)
        context.changes.within(
            db,
            worker.key,
            lambda worker, _: intents.observe_submission(worker, record.job_id, now),
            source="operator",
        )

    # One that starts later, or once more, is to have a token that this agent knows.
    await asyncio.to_thread(context.preparation.renew_token, found.key)
    await context.store.run(write)


def _keys_of(record: JobRecord) -> list[str]:
    return [key for key in keys_of(record) if _KEY.fullmatch(key)]


def _key_of(record: JobRecord) -> str:
    """Return what the job is called, in any of the places that say so; empty for others' jobs."""
    return next(iter(_keys_of(record)), "")
