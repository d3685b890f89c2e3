"""Snapshots in the database, for gateways that share nothing else."""

from __future__ import annotations

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import definition_snapshots as snapshots

_ADD = sa.text(
    "INSERT INTO definition_snapshots VALUES (:sha1, :content) ON CONFLICT (sha1) DO NOTHING"
)


class DatabaseBlobs:
    """Rows of compressed snapshots; a value of PostgreSQL holds up to 1 GB."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def has(self, sha1: str) -> bool:
        query = sa.select(snapshots.c.sha1).where(snapshots.c.sha1 == sha1)
        with self._database.read() as connection:
            return connection.scalar(query) is not None

    def read(self, sha1: str) -> bytes:
        query = sa.select(snapshots.c.content).where(snapshots.c.sha1 == sha1)
        with self._database.read() as connection:
            content = connection.scalar(query)
        if content is None:
            raise FileNotFoundError(f"there is no snapshot {sha1}")
        return bytes(content)

    def write(self, sha1: str, compressed: bytes) -> None:
        with self._database.write() as connection:
            connection.execute(_ADD, {"sha1": sha1, "content": compressed})
