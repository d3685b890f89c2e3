"""The run that a step belongs to, as it was launched."""

from __future__ import annotations

from sqlite_utils import Database

from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.relay.step_requests import AskedJob
from hpc_agent.steps.planning import Step
from hpc_agent.store import launches, steps
from hpc_agent.store.workers import Worker


def launched_run(db: Database, run_id: str) -> RunToLaunch | None:
    """Return a run as the control plane launched it, None when that is not known any more."""
    content = launches.find(db, run_id)
    return RunToLaunch(**content) if content is not None else None


def asked_step(db: Database, worker: Worker) -> Step | None:
    """Return what a run has asked for, None when that is not known any more."""
    run, content = launched_run(db, str(worker.run_id)), steps.request(db, worker.key)
    if run is None or content is None:
        return None
    return Step(run=run, asked=AskedJob.model_validate_json(content), deployment=worker.deployment)
