"""Maintenance mode: switched by an operator, seen by every gateway of the control plane."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import settings

DEFAULT_MESSAGE = "the control plane is down for maintenance"
_NAME = "maintenance"
_PUT = sa.text(
    "INSERT INTO settings VALUES (:name, :value) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """What agents and jobs are told; ``until`` (seconds since the epoch) ends it by itself."""

    message: str = DEFAULT_MESSAGE
    since: float
    until: float | None = None


class MaintenanceSwitch:
    """Reads and sets the mode."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def turn_on(self, message: str, minutes: float | None) -> Maintenance:
        now = time.time()
        until = None if minutes is None else now + minutes * 60
        maintenance = Maintenance(message=message, since=now, until=until)
        with self._database.write() as connection:
            connection.execute(_PUT, {"name": _NAME, "value": json.dumps(asdict(maintenance))})
        return maintenance

    def turn_off(self) -> bool:
        """End it, and tell whether it was on."""
        was_on = self.current() is not None
        with self._database.write() as connection:
            connection.execute(sa.delete(settings).where(settings.c.name == _NAME))
        return was_on

    def current(self) -> Maintenance | None:
        """Return what is told at the moment; None when the control plane serves."""
        query = sa.select(settings.c.value).where(settings.c.name == _NAME)
        with self._database.read() as connection:
            value = connection.scalar(query)
        if value is None:
            return None
        found = Maintenance(**json.loads(value))
        return None if found.until is not None and found.until <= time.time() else found
