"""What the suites run on: a kind of storage over a database."""

from __future__ import annotations

import enum
from dataclasses import dataclass

SIDE_VARIABLE = "STORAGE_SUITES_SIDE"
URL_VARIABLE = "STORAGE_SUITES_DATABASE_URL"


class Storage(enum.StrEnum):
    """Dagster's own storages, or those of the stock client in front of our gateway."""

    PLAIN = "plain"
    GATEWAY = "gateway"


class Database(enum.StrEnum):
    """Where either keeps things."""

    SQLITE = "SQLite"
    POSTGRESQL = "PostgreSQL"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the four that are compared."""

    storage: Storage
    database: Database

    def __str__(self) -> str:
        return f"{self.storage} on {self.database}"

    @classmethod
    def of(cls, text: str) -> Side:
        """Read what ``str`` wrote."""
        storage, _, database = text.partition(" on ")
        return cls(Storage(storage), Database(database))
