"""Workers with their jobs, and launches, as tests want them: without the way that leads there."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from sqlite_utils import Database

from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.slurm.state import JobState
from hpc_agent.store import jobs, rows, workers
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker

_OF_WORKER = frozenset(field.name for field in fields(Worker))
_OF_JOB = frozenset(field.name for field in fields(Job)) - _OF_WORKER
_OF_BOTH = frozenset({"started_at", "ended_at", "exit_code", "signal"})


def a_worker(**values: Any) -> Worker:
    """Return a worker; what is said of its job makes one, with the id ``job_id``.

    ``state`` of a worker that is over is how it ended, ``reason`` of one that is not submitted what
    it waits for.
    """
    phase: Phase = values["phase"]
    mine = {name: value for name, value in values.items() if name in _OF_WORKER}
    of_job = {name: value for name, value in values.items() if name in _OF_JOB}
    unknown = values.keys() - _OF_WORKER - _OF_JOB
    assert not unknown, f"neither of a worker nor of a job: {unknown}"
    if phase in {Phase.INTENT, Phase.SUBMITTING}:
        mine.setdefault("waits_for", of_job.pop("reason", ""))
    if phase is Phase.ENDED:
        mine.setdefault("outcome", of_job.get("state", JobState.COMPLETED))
    if phase is Phase.RUNNING:
        mine.setdefault("is_claimed", True)
    job_id = of_job.pop("job_id", None)
    worker = Worker(**mine)
    if job_id is None and not of_job:
        return worker
    of_job.setdefault("submitted_at", worker.created_at)
    of_job.setdefault("is_over", phase.is_final)
    shared = {name: mine[name] for name in _OF_BOTH & mine.keys()}
    job = Job(id=0, worker_key=worker.key, job_id=job_id or "", **of_job, **shared)
    return replace(worker, job=job)


def a_launch(run_id: str, **values: Any) -> RunToLaunch:
    """Return a run as the control plane launches it."""
    given = {"job_name": "j", "location": "here", "tags": {}, "code_origin": None} | values
    return RunToLaunch(run_id=run_id, **given)


def put(db: Database, worker: Worker) -> Worker:
    """Put a worker into the store as it is, with its job."""
    workers.insert(db, replace(worker, phase=Phase.INTENT, job=None))
    if worker.job is not None:
        job = jobs.insert(db, worker.key, worker.job.job_id, now=worker.job.submitted_at)
        given = {
            field.name: getattr(worker.job, field.name)
            for field in fields(Job)
            if field.name not in {"id", "worker_key", "job_id"}
        }
        job = jobs.change(db, job.id, **given)
        workers.set_current(db, worker.key, job, is_claimed=worker.is_claimed)
    rows.update(db, "workers", "key", worker.key, {"phase": worker.phase})
    return workers.get(db, worker.key)
