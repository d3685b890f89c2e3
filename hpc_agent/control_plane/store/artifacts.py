"""Files that jobs and users put here by name, such as the state of state-backed components."""

from __future__ import annotations

import time

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import artifacts

_PUT = sa.text(
    "INSERT INTO artifacts VALUES (:deployment, :key, :content, :created_at) "
    "ON CONFLICT (deployment, key) DO UPDATE "
    "SET content = excluded.content, created_at = excluded.created_at"
)


class Artifacts:
    """Contents by deployment and key; a later one replaces an earlier one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, deployment: str, key: str, content: bytes) -> None:
        values = {
            "deployment": deployment, "key": key, "content": content, "created_at": time.time(),
        }  # fmt: skip
        with self._database.write() as connection:
            connection.execute(_PUT, values)

    def get(self, deployment: str, key: str) -> bytes | None:
        query = sa.select(artifacts.c.content).where(
            artifacts.c.deployment == deployment, artifacts.c.key == key
        )
        with self._database.read() as connection:
            content = connection.scalar(query)
        return None if content is None else bytes(content)
