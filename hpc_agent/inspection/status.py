"""What a state database tells a person: read beside a running agent, which is not disturbed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from hpc_agent.code_servers.demand import STOPPED
from hpc_agent.config import AgentConfig
from hpc_agent.errors import HpcAgentError
from hpc_agent.files import Files
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.wording import describe
from hpc_agent.store import code_servers, jobs, meta, outbox
from hpc_agent.store.database import read_only
from hpc_agent.store.jobs import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """How an agent stands; ``running_on`` is None when none runs."""

    agent_id: str | None
    control_plane: str
    running_on: str | None
    pid: int | None
    jobs_by_phase: dict[str, int]
    code_servers: list[dict[str, Any]]
    messages_waiting: int


def read_status(config: AgentConfig) -> AgentStatus:
    """Read an agent's status. Raises StoreError when it has never run."""
    db = read_only(config.home)
    lease = db.execute("SELECT host, pid, heartbeat_at FROM lease").fetchone()
    alive = lease is not None and time.time() - lease[2] < meta.LEASE_SECONDS
    return AgentStatus(
        agent_id=meta.get(db, "agent_id"),
        control_plane=config.control_plane.url,
        running_on=lease[0] if alive else None,
        pid=lease[1] if alive else None,
        jobs_by_phase={phase.value: count for phase, count in jobs.count_by_phase(db).items()},
        code_servers=[
            *(_server_row(db, server) for server in code_servers.not_retired(db)),
            *_stopped_rows(db),
        ],
        messages_waiting=outbox.count_waiting(db),
    )


def read_jobs(config: AgentConfig, *, limit: int, everything: bool) -> list[dict[str, Any]]:
    """Return jobs, newest first; without ``everything`` only those that are not concluded."""
    db = read_only(config.home)
    return [_job_row(job) for job in jobs.recent(db, limit=limit, include_concluded=everything)]


def read_history(config: AgentConfig, name: str) -> list[dict[str, Any]]:
    """Return the state history of one job."""
    db = read_only(config.home)
    job = find_job(db, name)
    return [
        {
            "at": entry.at,
            "phase": entry.phase,
            "state": entry.state,
            "reason": entry.reason,
            "source": entry.source,
        }
        for entry in jobs.history(db, job.key)
    ]


def log_file(config: AgentConfig, files: Files, name: str, stream: str) -> Path:
    """Return the file with a job's output: ``stdout``, ``stderr``, or ``job`` for the script's own.

    Raises HpcAgentError when there is no such job or no such file yet.
    """
    job = find_job(read_only(config.home), name)
    file = {"job": "slurm.out"}.get(stream, stream)
    path = WorkDirectory(config.work_dir).of(job.key) / file
    try:
        files.read_from(path, 0, 1)
    except OSError as error:
        reason = "does not exist yet" if isinstance(error, FileNotFoundError) else str(error)
        raise HpcAgentError(f"{path}: {reason}: {describe(job)}") from None
    return path


def find_job(db: Database, name: str) -> Job:
    """Return the job with this key, job id, run id, or code location. Raises HpcAgentError."""
    row = db.execute(
        "SELECT key FROM jobs WHERE ? IN (key, job_id, run_id) "
        "OR (kind = 'code_server' AND location = ?) ORDER BY created_at DESC LIMIT 1",
        [name, name],
    ).fetchone()
    if row is None:
        raise HpcAgentError(
            f"no job {name!r}: give a run id, a job id, a key or a code location; "
            "`hpc-agent jobs --all` lists them"
        )
    return jobs.get(db, row[0])


def _server_row(db: Database, server: code_servers.CodeServer) -> dict[str, Any]:
    return {
        "deployment": server.deployment,
        "location": server.location,
        "status": server.status.value,
        "job": describe(jobs.get(db, server.key)),
        "key": server.key,
    }


def _stopped_rows(db: Database) -> list[dict[str, Any]]:
    """Code locations whose servers start with the next request."""
    return [
        {
            "deployment": deployment,
            "location": location,
            "status": "stopped",
            "job": "none: it starts with the next request",
            "key": "",
        }
        for deployment, location in json.loads(meta.get(db, STOPPED) or "[]")
    ]


def _position(job: Job) -> dict[str, Any] | None:
    """Where in the queue a waiting job was at the last look."""
    if job.position is None or not job.is_waiting:
        return None
    return {"position": job.position, "of": job.position_among, "partition": job.position_partition}


def _job_row(job: Job) -> dict[str, Any]:
    return {
        "key": job.key,
        "job_id": job.job_id,
        "kind": job.kind.value,
        "deployment": job.deployment,
        "location": job.location,
        "run_id": job.run_id,
        "phase": job.phase.value,
        "state": job.state.value,
        "reason": job.reason,
        "position": _position(job),
        "nodes": job.nodes,
        "created_at": job.created_at,
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "description": describe(job),
    }
