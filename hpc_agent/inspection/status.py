"""What a state database tells a person: read beside a running agent, which is not disturbed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.inspection.disks import Disk, disks_of
from hpc_agent.inspection.outgoing import OUTBOX, SPOOL, count_outgoing
from hpc_agent.inspection.servers import server_rows
from hpc_agent.store import meta, node_faults, pauses, pools, workers
from hpc_agent.store.database import read_only
from hpc_agent.store.draining import Drain


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """How an agent stands; ``running_on`` is None when none runs.

    ``troubles`` is what its loops cannot do at the moment. Times in seconds since the epoch.
    """

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
    stopped_pools: list[dict[str, Any]]
    troubles: list[dict[str, Any]]
    recent_errors: list[dict[str, Any]]
    disks: list[Disk]


def read_status(config: AgentConfig) -> AgentStatus:
    """Read an agent's status. Raises StoreError when it has never run."""
    db = read_only(config.home)
    holder = meta.holder(db, time.time())
    outgoing = count_outgoing(config.home)
    messages, events = outgoing[OUTBOX.name], outgoing[SPOOL.name]
    troubles = json.loads(meta.get(db, meta.TROUBLES) or '{"now": [], "errors": []}')
    return AgentStatus(
        agent_id=meta.get(db, "agent_id"),
        control_plane=config.control_plane.url,
        running_on=holder[0] if holder else None,
        pid=holder[1] if holder else None,
        jobs_by_phase={phase.value: count for phase, count in workers.count_by_phase(db).items()},
        code_servers=server_rows(db),
        avoided_nodes=_avoided_rows(config, db),
        unreadable=json.loads(meta.get(db, meta.UNREADABLE) or "{}"),
        messages_waiting=messages.waiting,
        messages_set_aside=messages.set_aside,
        events_waiting=events.waiting,
        events_set_aside=events.set_aside,
        draining_since=Drain().recall(db).since,
        paused=[asdict(pause) for pause in pauses.all_of(db)],
        stopped_pools=[
            {"pool": name, "since": stop.since, "reason": stop.reason}
            for name in sorted(config.pools)
            if (stop := pools.stopped(db, name)) is not None
        ],
        troubles=troubles["now"] if holder else [],
        recent_errors=troubles["errors"],
        disks=disks_of(config),
        artifacts={
            "directory": str(config.artifacts_directory),
            **json.loads(meta.get(db, meta.ARTIFACTS) or "{}"),
        },
    )


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
