"""What is to be started and what to be retired: a pure function of what is wanted and what is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from hpc_agent.code_servers import handover
from hpc_agent.code_servers.demand import Place
from hpc_agent.code_servers.location_state import LocationState, place_of
from hpc_agent.code_servers.restarts import Edition
from hpc_agent.store.code_servers import CodeServer, ServerStatus

DRAIN_SECONDS = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Locations that need a new server, and servers that nobody wants any more."""

    start: tuple[LocationState, ...]
    retire: tuple[CodeServer, ...]


def reconcile(
    states: Iterable[LocationState],
    servers: Iterable[CodeServer],
    *,
    desired: Collection[Place],
    may_start: Callable[[Edition], bool],
    now: float,
    handover_seconds: float | None,
) -> Steps:
    """Compare what is desired with what there is.

    ``may_start`` says whether an edition's server is due, or waits after a failure.
    """
    return Steps(
        start=tuple(
            state
            for state in states
            if _wants_new_server(state, may_start, now=now, handover_seconds=handover_seconds)
        ),
        retire=tuple(server for server in servers if place_of(server) not in desired),
    )


def _wants_new_server(
    state: LocationState,
    may_start: Callable[[Edition], bool],
    *,
    now: float,
    handover_seconds: float | None,
) -> bool:
    server, version = state.server, state.location.version
    if server is not None and server.version != version:
        return True
    if not may_start((*state.place, version)):
        return False
    if server is None or state.worker is None or server.status is ServerStatus.FAILED:
        return True
    return server.status is ServerStatus.SERVING and handover.is_due(
        server,
        state.worker,
        now=now,
        drain_seconds=DRAIN_SECONDS,
        handover_seconds=handover_seconds,
    )
