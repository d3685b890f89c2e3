"""How a code location stands: one code location with the servers that it has at the moment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hpc_agent.code_servers.demand import Place
from hpc_agent.code_servers.workspace import CodeLocation
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.workers import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationState:
    """One code location: what is wanted, and the newest server with its worker, if any.

    ``incumbent`` is the worker of the server that serves the same version while that one starts,
    ``predecessor`` that of one that serves the version before it.
    ``note`` says why it does not serve yet, or why the server before it was given up.
    """

    place: Place
    location: CodeLocation
    server: CodeServer | None
    worker: Worker | None
    incumbent: Worker | None = None
    predecessor: Worker | None = None
    note: str | None = None


def state_of(
    place: Place,
    location: CodeLocation,
    servers: Iterable[tuple[CodeServer, Worker]],
    *,
    note: str | None,
) -> LocationState:
    """Put a code location and its servers, oldest first, together; other servers are left out."""
    own = [(server, worker) for server, worker in servers if place_of(server) == place]
    if not own:
        return LocationState(place=place, location=location, server=None, worker=None, note=note)
    newest, worker = own[-1]
    serving = [each for each in own[:-1] if each[0].status is ServerStatus.SERVING]
    incumbents = [its for other, its in serving if other.version == newest.version]
    predecessors = [its for other, its in serving if other.version != newest.version]
    return LocationState(
        place=place,
        location=location,
        server=newest,
        worker=worker,
        incumbent=incumbents[-1] if incumbents else None,
        predecessor=predecessors[-1] if predecessors else None,
        note=note,
    )


def place_of(server: CodeServer) -> Place:
    """Return the code location that a server serves."""
    return server.deployment, server.location
