"""Agents and the code servers they tell of, as of their last heartbeats."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import agents, bump, code_servers, keep_others_out

FORGOTTEN_AFTER_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeServer:
    """The state of a location's code server in an agent's words.

    ``version`` is the time of the deploy that it was started for, where the agent says that.
    """

    location: str
    status: str
    message: str
    version: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent as of its last heartbeat, which is kept serialized."""

    deployment: str
    agent_id: str
    token_id: str
    label: str | None
    agent_type: str | None
    heartbeat_at: float
    heartbeat: str
    errors: str


class Agents:
    """What agents said last."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, agent: Agent, servers: Sequence[CodeServer]) -> None:
        """Store a heartbeat; faces are told of a new agent and of code servers that changed."""
        with self._database.write() as connection:
            keep_others_out(connection, "workspace")
            mine = sa.and_(
                agents.c.deployment == agent.deployment, agents.c.agent_id == agent.agent_id
            )
            is_new = connection.execute(sa.delete(agents).where(mine)).rowcount == 0
            connection.execute(sa.insert(agents).values(asdict(agent)))
            if _replace_servers(connection, agent, servers) or is_new:
                bump(connection, "workspace")

    def all(self, *, since: float = 0.0) -> list[Agent]:
        query = sa.select(agents).where(agents.c.heartbeat_at >= since).order_by("heartbeat_at")
        with self._database.read() as connection:
            return [Agent(**row) for row in connection.execute(query).mappings()]

    def code_servers(self) -> dict[tuple[str, str], CodeServer]:
        """Return the newest word on each (deployment, location)."""
        query = sa.select(code_servers).order_by("heartbeat_at")
        with self._database.read() as connection:
            return {
                (row.deployment, row.location): _server(row) for row in connection.execute(query)
            }

    def forget_old(self) -> None:
        limit = time.time() - FORGOTTEN_AFTER_SECONDS
        with self._database.write() as connection:
            connection.execute(sa.delete(agents).where(agents.c.heartbeat_at < limit))
            connection.execute(sa.delete(code_servers).where(code_servers.c.heartbeat_at < limit))


def _server(row: sa.Row[Any]) -> CodeServer:
    return CodeServer(
        location=row.location, status=row.status, message=row.message, version=row.version
    )


def _replace_servers(
    connection: sa.Connection, agent: Agent, servers: Sequence[CodeServer]
) -> bool:
    mine = sa.and_(
        code_servers.c.deployment == agent.deployment, code_servers.c.agent_id == agent.agent_id
    )
    query = sa.select(code_servers).where(mine)
    before = {_server(row) for row in connection.execute(query)}
    connection.execute(sa.delete(code_servers).where(mine))
    for server in servers:
        connection.execute(
            sa.insert(code_servers).values(
                deployment=agent.deployment, agent_id=agent.agent_id, location=server.location,
                status=server.status, message=server.message, version=server.version,
                heartbeat_at=agent.heartbeat_at,
            )
        )  # fmt: skip
    return before != set(servers)
