"""What all gateways of one control plane must share."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import settings

_ADD = sa.text("INSERT INTO settings VALUES (:name, :value) ON CONFLICT (name) DO NOTHING")


class Settings:
    """Values made once by whichever gateway comes first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def url_key(self) -> bytes:
        """Return the key that signs upload addresses: one gateway's are good at every other."""
        return bytes.fromhex(self._get_or_make("url_key", secrets.token_hex(32)))

    def _get_or_make(self, name: str, fresh: str) -> str:
        query = sa.select(settings.c.value).where(settings.c.name == name)
        with self._database.write() as connection:
            connection.execute(_ADD, {"name": name, "value": fresh})
            return str(connection.scalar(query))
