"""What a state database tells a person: read beside a running agent, which is not disturbed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from hpc_agent.code_servers.demand import STOPPED
from hpc_agent.config import AgentConfig
from hpc_agent.errors import HpcAgentError
from hpc_agent.files import Files
from hpc_agent.inspection.outgoing import OUTBOX, SPOOL, count_outgoing
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.wording import describe, describe_since
from hpc_agent.store import code_servers, meta, node_faults, workers
from hpc_agent.store.code_servers import ServerStatus
from hpc_agent.store.database import read_only
from hpc_agent.store.workers import Worker


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
    avoided_nodes: list[dict[str, Any]]
    unreadable: dict[str, list[str]]
    messages_set_aside: int
    events_waiting: int
    events_set_aside: int
    artifacts: dict[str, Any]


def read_status(config: AgentConfig) -> AgentStatus:
    """Read an agent's status. Raises StoreError when it has never run."""
    db = read_only(config.home)
    lease = db.execute("SELECT host, pid, heartbeat_at FROM lease").fetchone()
    outgoing = count_outgoing(config.home)
    messages, events = outgoing[OUTBOX.name], outgoing[SPOOL.name]
    alive = lease is not None and time.time() - lease[2] < meta.LEASE_SECONDS
    return AgentStatus(
        agent_id=meta.get(db, "agent_id"),
        control_plane=config.control_plane.url,
        running_on=lease[0] if alive else None,
        pid=lease[1] if alive else None,
        jobs_by_phase={phase.value: count for phase, count in workers.count_by_phase(db).items()},
        code_servers=[
            *_server_rows(db),
            *_stopped_rows(db),
        ],
        avoided_nodes=_avoided_rows(config, db),
        unreadable=json.loads(meta.get(db, meta.UNREADABLE) or "{}"),
        messages_waiting=messages.waiting,
        messages_set_aside=messages.set_aside,
        events_waiting=events.waiting,
        events_set_aside=events.set_aside,
        artifacts={
            "directory": str(config.artifacts_directory),
            **json.loads(meta.get(db, meta.ARTIFACTS) or "{}"),
        },
    )


def read_jobs(config: AgentConfig, *, limit: int, everything: bool) -> list[dict[str, Any]]:
    """Return jobs, newest first; without ``everything`` only those that are not concluded."""
    db = read_only(config.home)
    return [
        _job_row(worker) for worker in workers.recent(db, limit=limit, include_concluded=everything)
    ]


def read_history(config: AgentConfig, name: str) -> list[dict[str, Any]]:
    """Return the state history of one job."""
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


def log_file(config: AgentConfig, files: Files, name: str, stream: str) -> Path:
    """Return the file with a job's output: ``stdout``, ``stderr``, or ``job`` for the script's own.

    Raises HpcAgentError when there is no such job or no such file yet.
    """
    worker = find_worker(read_only(config.home), name)
    file = {"job": "slurm.out"}.get(stream, stream)
    work = WorkDirectory(config.work_dir)
    path = work.of(worker.key) / file
    try:
        files.read_from(path, 0, 1, within=work.jobs)
    except OSError as error:
        reason = "does not exist yet" if isinstance(error, FileNotFoundError) else str(error)
        raise HpcAgentError(f"{path}: {reason}: {describe(worker)}") from None
    return path


def find_worker(db: Database, name: str) -> Worker:
    """Return the worker with this key, job id, run id, or code location. Raises HpcAgentError."""
    worker = workers.named(db, name)
    if worker is None:
        raise HpcAgentError(
            f"no job {name!r}: give a run id, a job id, a key or a code location; "
            "`hpc-agent jobs --all` lists them"
        )
    return worker


def _server_rows(db: Database) -> list[dict[str, Any]]:
    """Each server; one that starts beside the server of an older deploy says that it is newer."""
    servers = code_servers.not_retired(db)
    served = {
        (each.deployment, each.location): each.version
        for each in servers
        if each.status is ServerStatus.SERVING
    }
    rows = []
    for server in servers:
        row = _server_row(db, server)
        older = served.get((server.deployment, server.location), server.version)
        if server.status is ServerStatus.STARTING and older != server.version:
            deployed = datetime.fromtimestamp(row["deployed_at"], UTC)
            row["job"] = f"newer version, deployed {deployed:%Y-%m-%d %H:%M} UTC: {row['job']}"
        rows.append(row)
    return rows


def _server_row(db: Database, server: code_servers.CodeServer) -> dict[str, Any]:
    return {
        "deployment": server.deployment,
        "location": server.location,
        "status": server.status.value,
        "deployed_at": float(server.version),
        "job": describe_since(workers.get(db, server.key)),
        "key": server.key,
    }


def _stopped_rows(db: Database) -> list[dict[str, Any]]:
    """Code locations whose servers start with the next request."""
    return [
        {
            "deployment": deployment,
            "location": location,
            "status": "stopped",
            "deployed_at": None,
            "job": "none: it starts with the next request",
            "key": "",
        }
        for deployment, location in json.loads(meta.get(db, STOPPED) or "[]")
    ]


def _avoided_rows(config: AgentConfig, db: Database) -> list[dict[str, Any]]:
    """Nodes on which jobs have failed one after the other, and until when they are kept off."""
    seconds = config.scheduler.avoid_failing_nodes_minutes * 60
    return [
        {
            "node": fault.node,
            "failures": fault.count,
            "reason": fault.reason,
            "avoided_until": fault.last_at + seconds,
        }
        for fault in node_faults.suspects(db, time.time() - seconds)
        if seconds
    ]


def _position(worker: Worker) -> dict[str, Any] | None:
    """Where in the queue a waiting job was at the last look."""
    job = worker.job
    if job is None or job.position is None or not worker.is_waiting:
        return None
    return {"position": job.position, "of": job.position_among, "partition": job.position_partition}


def _job_row(worker: Worker) -> dict[str, Any]:
    return {
        "key": worker.key,
        "job_id": worker.job_id,
        "kind": worker.kind.value,
        "deployment": worker.deployment,
        "location": worker.location,
        "run_id": worker.run_id,
        "phase": worker.phase.value,
        "state": worker.state.value,
        "reason": worker.reason,
        "position": _position(worker),
        "nodes": worker.nodes,
        "created_at": worker.created_at,
        "submitted_at": worker.submitted_at,
        "started_at": worker.started_at,
        "ended_at": worker.ended_at,
        "description": describe(worker),
    }
