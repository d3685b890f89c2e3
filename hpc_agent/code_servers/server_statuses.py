"""How the code servers stand, as the agent's heartbeat carries it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from hpc_agent.code_servers.location_state import LocationState
from hpc_agent.dagster_plus.serdes import Packed, error_info, packed, packed_enum
from hpc_agent.jobs.wording import describe, describe_since
from hpc_agent.store.code_servers import ServerStatus

_STATUS = {
    ServerStatus.STARTING: "STARTING",
    ServerStatus.SERVING: "RUNNING",
    ServerStatus.FAILED: "FAILED",
}
# The stock agent's limit (DAGSTER_CLOUD_CODE_SERVER_HEARTBEAT_ERROR_SIZE_LIMIT).
_ERROR_CHARACTERS = 5000


def server_heartbeats(states: Iterable[LocationState], deployment: str) -> list[Packed]:
    """Return a CloudCodeServerHeartbeat for each code location of a deployment."""
    return [_heartbeat(state) for state in states if state.place[0] == deployment]


def without_messages(heartbeats: Iterable[Packed]) -> list[Packed]:
    """Return the heartbeats without what makes them long."""
    return [{**heartbeat, "error": None, "metadata": {}} for heartbeat in heartbeats]


def _heartbeat(state: LocationState) -> Packed:
    server = state.server
    status = _STATUS[server.status] if server else "STARTING"
    words = describe_since(state.worker) if state.worker else "not started yet"
    if state.note:
        words += f"; {state.note}"
    if state.predecessor is not None:
        words += f"; the version before it serves until then: {describe(state.predecessor)}"
    error: Packed | None = None
    if state.incumbent is not None:
        status = "RUNNING"
        words = f"{describe(state.incumbent)}; its successor: {words}"
    elif server and server.status is ServerStatus.FAILED:
        error = _shortened(server.error, words)
    elif status == "STARTING":
        error = error_info(f"code server: {words}")
    return packed(
        "CloudCodeServerHeartbeat",
        location_name=state.place[1],
        server_status=packed_enum("CloudCodeServerStatus", status),
        error=error,
        # What the words are of: a deploy may be newer than all that the agent knows.
        metadata={"message": words, **({"version": float(server.version)} if server else {})},
    )


def _shortened(serialized: str | None, words: str) -> Packed:
    if serialized is None:
        return error_info(f"code server: {words}")
    content = json.loads(serialized)
    message = str(content.get("message") or words)[:_ERROR_CHARACTERS]
    return {**content, "message": message, "stack": [], "cause": None}
