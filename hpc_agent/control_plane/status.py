"""What ``control-plane status`` and ``token list`` show."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hpc_agent.control_plane.agents_seen import AgentsSeen
from hpc_agent.control_plane.faces.standing import update_text
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.presence import LEASE_SECONDS
from hpc_agent.control_plane.store.agents import Agent, Agents, CodeServer
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.locations import Location, Locations
from hpc_agent.control_plane.store.tokens import Token


def read_status(home: Home, database: Database) -> dict[str, Any]:
    """Collect addresses, locations and agents into plain JSON values."""
    agents = Agents(database)
    servers, known = agents.code_servers(), agents.all()
    seen = AgentsSeen(is_any_alive=any(map(_is_alive, known)), last=known[-1] if known else None)
    return {
        "running": _running(home),
        "locations": [
            _location(location, servers.get((location.deployment, location.name)), seen)
            for location in Locations(database).all()
        ],
        "agents": [
            {
                "id": agent.agent_id,
                "deployment": agent.deployment,
                "label": agent.label,
                "seconds_since_heartbeat": round(time.time() - agent.heartbeat_at, 1),
                "is_alive": _is_alive(agent),
            }
            for agent in known
        ],
    }


def status_lines(status: dict[str, Any]) -> list[str]:
    running = status["running"]
    lines = [f"UI {running['ui']}, agent API {running['api']}" if running else "not running"]
    if running and running.get("ui_auth") == "off":
        lines.append("THE UI HAS NO LOGIN: everybody on its machine can launch runs")
    lines += [
        f"location {row['deployment']}/{row['name']}: {row['state']}"
        + _colon(row["update"] or row["message"])
        for row in status["locations"]
    ]
    lines += [
        f"agent {row['label'] or row['id']} ({row['deployment']}): "
        f"{'alive' if row['is_alive'] else 'silent'}, "
        f"heartbeat {row['seconds_since_heartbeat']:.0f} s ago"
        for row in status["agents"]
    ]
    return lines


def _is_alive(agent: Agent) -> bool:
    return time.time() - agent.heartbeat_at < LEASE_SECONDS


def token_rows(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    return [
        {
            "id": token.token_id,
            "kind": str(token.kind),
            "role": str(token.role or "-"),
            "name": token.name,
            "created": datetime.fromtimestamp(token.created_at, tz=UTC).isoformat("T", "seconds"),
            "state": "revoked" if token.revoked_at else "valid",
        }
        for token in tokens
    ]


def _running(home: Home) -> dict[str, Any] | None:
    """Return the addresses of the running control plane, not those a killed one left."""
    try:
        addresses: dict[str, Any] = json.loads(home.running_json.read_text())
        os.kill(addresses["pid"], 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        pass  # it runs as another user
    return addresses


def _location(location: Location, server: CodeServer | None, seen: AgentsSeen) -> dict[str, Any]:
    if location.error is not None:
        state = "load error"
    elif location.manifest is None:
        state = "not loaded"
    else:
        state = "redeploying" if location.is_outdated else "loaded"
    return {
        "deployment": location.deployment,
        "name": location.name,
        "state": state,
        "message": server.message if server else "",
        "deployed_at": location.updated_at,
        "update": update_text(location, server, seen),
    }


def _colon(message: str) -> str:
    return f": {message.splitlines()[0]}" if message else ""
