"""What the gateway's tables hold at the moment, in one look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.requests import RequestState
from hpc_agent.control_plane.store.schema import agents, requests


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAgent:
    """When an agent's heartbeat last came; ``name`` is its label, or its id without one."""

    deployment: str
    name: str
    heartbeat_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequests:
    """Requests in one state, and when the oldest of them was made; None without any."""

    state: RequestState
    number: int
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class Census:
    """Agents, and the requests that have no answer."""

    agents: Sequence[SeenAgent]
    requests: Sequence[OpenRequests]


def take_census(database: Database) -> Census:
    """Look; heartbeats themselves are not read, which may have megabytes."""
    with database.read() as connection:
        seen = connection.execute(
            sa.select(
                agents.c.deployment,
                sa.func.coalesce(agents.c.label, agents.c.agent_id).label("name"),
                agents.c.heartbeat_at,
            )
        )
        found = [SeenAgent(**row) for row in seen.mappings()]
        return Census(found, [_open(connection, state) for state in RequestState if state.is_open])


def _open(connection: sa.Connection, state: RequestState) -> OpenRequests:
    query = sa.select(sa.func.count(), sa.func.min(requests.c.created_at))
    number, oldest = connection.execute(query.where(requests.c.state == state)).one()
    return OpenRequests(state=state, number=number, oldest_at=oldest)
