"""When agents were last seen, by any gateway."""

from __future__ import annotations

import time
from collections.abc import Mapping

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import sightings

FORGOTTEN_AFTER_SECONDS = 24 * 3600

_RECORD = sa.text(
    "INSERT INTO sightings VALUES (:owner, :seen_at) ON CONFLICT (owner) DO UPDATE "
    "SET seen_at = excluded.seen_at WHERE sightings.seen_at < excluded.seen_at"
)


class Sightings:
    """Last signs of life by lease owner, in seconds since the epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, seen: Mapping[str, float]) -> None:
        """Store signs of life; older ones than those known change nothing."""
        # In order, so that two gateways never wait for each other's rows.
        rows = [{"owner": owner, "seen_at": seen[owner]} for owner in sorted(seen)]
        if rows:
            with self._database.write() as connection:
                connection.execute(_RECORD, rows)

    def all(self) -> dict[str, float]:
        with self._database.read() as connection:
            return {row.owner: row.seen_at for row in connection.execute(sa.select(sightings))}

    def forget_old(self) -> None:
        limit = time.time() - FORGOTTEN_AFTER_SECONDS
        with self._database.write() as connection:
            connection.execute(sa.delete(sightings).where(sightings.c.seen_at < limit))
