"""Jobs and runs as rows for people and scripts: one for each worker, or for each run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hpc_agent.config import AgentConfig
from hpc_agent.inspection.names import find_worker
from hpc_agent.jobs.wording import describe
from hpc_agent.slurm.state import JobState
from hpc_agent.store import selection, workers
from hpc_agent.store.database import read_only
from hpc_agent.store.selection import Selection
from hpc_agent.store.workers import Worker, WorkerKind


def read_jobs(config: AgentConfig, asked: Selection) -> list[dict[str, Any]]:
    """Return the jobs that are asked for. Raises StoreError when no agent has run."""
    db = read_only(config.home)
    return [job_row(worker) for worker in selection.find(db, asked)]


def read_runs(config: AgentConfig, asked: Selection) -> list[dict[str, Any]]:
    """Return the runs that are asked for, each as its newest attempt stands."""
    runs = replace(asked, kinds=[WorkerKind.RUN_WORKER], newest_attempts=True)
    return [row | {"attempts": row["attempt"]} for row in read_jobs(config, runs)]


def read_history(config: AgentConfig, name: str) -> list[dict[str, Any]]:
    """Return the states that a job has been in, oldest first. Raises HpcAgentError without it."""
    db = read_only(config.home)
    worker = find_worker(db, name)
    return [
        {
            "at": entry.at,
            "phase": entry.phase,
            "state": entry.state,
            "reason": entry.reason,
            "source": entry.source,
        }
        for entry in workers.history(db, worker.key)
    ]


def job_row(worker: Worker) -> dict[str, Any]:
    """Return one worker as a row."""
    return {
        "key": worker.key,
        "job_id": worker.job_id,
        "kind": worker.kind.value,
        "deployment": worker.deployment,
        "location": worker.location,
        "run_id": worker.run_id,
        "job_name": worker.job_name,
        "step": worker.step,
        "attempt": worker.attempt,
        "phase": worker.phase.value,
        "state": _state(worker),
        "reason": worker.reason,
        "position": _position(worker),
        "partition": worker.job.partition if worker.job else "",
        "nodes": worker.nodes,
        "created_at": worker.created_at,
        "submitted_at": worker.submitted_at,
        "started_at": worker.started_at,
        "ended_at": worker.ended_at,
        "deadline_at": worker.deadline_at,
        **_lengths(worker),
        "description": (f"{worker.step}: " if worker.step else "") + describe(worker),
    }


def _state(worker: Worker) -> str:
    """The scheduler's state of its job; where there is none, the agent's own word."""
    return worker.phase.value.upper() if worker.state is JobState.UNKNOWN else worker.state.value


def _lengths(worker: Worker) -> Mapping[str, float | None]:
    """How long it waited from its launch and ran, so far for one that does so still, in seconds."""
    now = time.time()
    over = worker.ended_at if worker.phase.is_final else now
    ran_from = worker.started_at
    waited_to = ran_from if ran_from is not None else over
    return {
        "wait_seconds": None if waited_to is None else max(waited_to - worker.created_at, 0.0),
        "elapsed_seconds": None if ran_from is None or over is None else max(over - ran_from, 0.0),
    }


def _position(worker: Worker) -> dict[str, Any] | None:
    """Where in the queue a waiting job was at the last look."""
    job = worker.job
    if job is None or job.position is None or not worker.is_waiting:
        return None
    return {"position": job.position, "of": job.position_among, "partition": job.position_partition}
