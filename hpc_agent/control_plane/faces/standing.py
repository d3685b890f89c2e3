"""How the newest version of a code location stands, in words: as the agent says, or why it cannot.

An agent's words are of the version that its code server was started for, which may be older than
the last deploy. What it said before it went away is told as that.
"""

from __future__ import annotations

from hpc_agent.control_plane.agents_seen import AgentsSeen, moment
from hpc_agent.control_plane.store.agents import CodeServer
from hpc_agent.control_plane.store.locations import Location

NO_AGENT = (
    "no agent has connected yet: start one with `hpc-agent start`, with this control plane's "
    "address and a token from `hpc-agent control-plane token create`"
)
_STARTING = "STARTING"


def waiting_text(location: Location, server: CodeServer | None, seen: AgentsSeen) -> str:
    """Say why a location has no definitions yet."""
    return f"code location {location.name!r} is not loaded yet: {_standing(location, server, seen)}"


def update_text(location: Location, server: CodeServer | None, seen: AgentsSeen) -> str | None:
    """Say how the version stands that is to take the place of the one shown; None: none is."""
    if location.manifest is None and location.error is None:
        return None
    if location.is_outdated:
        standing = _standing(location, server, seen)
        return f"a newer version, deployed at {moment(location.updated_at)}, loads: {standing}"
    if location.error is not None and server is not None and server.status == _STARTING:
        return f"its code server is started again: {_standing(location, server, seen)}"
    return None


def _standing(location: Location, server: CodeServer | None, seen: AgentsSeen) -> str:
    if not seen.is_any_known:
        return NO_AGENT
    told = server if server is not None and _is_of(location, server) else None
    words = told and (told.message or f"its code server is {told.status}")
    if not seen.is_any_alive:
        return (
            f"no agent is connected; {seen.last_heartbeat}{f' and said: {words}' if words else ''}"
        )
    return words or "an agent is connected and has not reported a code server for it"


def _is_of(location: Location, server: CodeServer) -> bool:
    """Whether a code server was started for what is deployed; a stock agent does not say."""
    return server.version is None or server.version >= location.updated_at
