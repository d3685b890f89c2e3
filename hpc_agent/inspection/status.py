"""What a state database tells a person: read beside a running agent, which is not disturbed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlite_utils import Database

from hpc_agent.code_servers.demand import STOPPED
from hpc_agent.config import AgentConfig
from hpc_agent.inspection.outgoing import OUTBOX, SPOOL, count_outgoing
from hpc_agent.jobs.wording import describe_since
from hpc_agent.store import code_servers, meta, node_faults, pauses, workers
from hpc_agent.store.code_servers import ServerStatus
from hpc_agent.store.database import read_only
from hpc_agent.store.draining import Drain


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
    draining_since: float | None
    paused: list[dict[str, Any]]


def read_status(config: AgentConfig) -> AgentStatus:
    """Read an agent's status. Raises StoreError when it has never run."""
    db = read_only(config.home)
    holder = meta.holder(db, time.time())
    outgoing = count_outgoing(config.home)
    messages, events = outgoing[OUTBOX.name], outgoing[SPOOL.name]
    return AgentStatus(
        agent_id=meta.get(db, "agent_id"),
        control_plane=config.control_plane.url,
        running_on=holder[0] if holder else None,
        pid=holder[1] if holder else None,
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
        draining_since=Drain().recall(db).since,
        paused=[asdict(pause) for pause in pauses.all_of(db)],
        artifacts={
            "directory": str(config.artifacts_directory),
            **json.loads(meta.get(db, meta.ARTIFACTS) or "{}"),
        },
    )


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
