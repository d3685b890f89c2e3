"""Code servers as rows: which version of which location each serves, or why it does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlite_utils import Database

from hpc_agent.code_servers.demand import STOPPED
from hpc_agent.config import AgentConfig
from hpc_agent.dagster_plus.serdes import message_of
from hpc_agent.jobs.wording import describe_since
from hpc_agent.store import code_servers, meta, workers
from hpc_agent.store.code_servers import ServerStatus
from hpc_agent.store.database import read_only


def read_servers(config: AgentConfig) -> list[dict[str, Any]]:
    """Return the code servers. Raises StoreError when no agent has run."""
    return server_rows(read_only(config.home))


def server_rows(db: Database) -> list[dict[str, Any]]:
    """Return the servers, and the code locations that have none for now.

    One that starts beside the server of an older deploy says that it is newer. ``error`` is why a
    location is not served, whole.
    """
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
        row["why"] = row["error"] or row["job"]
        rows.append(row)
    return [*rows, *_stopped_rows(db)]


def _server_row(db: Database, server: code_servers.CodeServer) -> dict[str, Any]:
    return {
        "deployment": server.deployment,
        "location": server.location,
        "status": server.status.value,
        "deployed_at": float(server.version),
        "job": describe_since(workers.get(db, server.key)),
        "error": message_of(server.error) if server.error else None,
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
            "job": (none := "none: it starts with the next request"),
            "why": none,
            "error": None,
            "key": "",
        }
        for deployment, location in json.loads(meta.get(db, STOPPED) or "[]")
    ]
