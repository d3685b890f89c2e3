"""Code servers: which version of which code location each one serves."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from typing import Any

from sqlite_utils import Database

from hpc_agent.journal.about import Fields


class ServerStatus(enum.Enum):
    """STARTING → SERVING → RETIRED; FAILED when it cannot serve (its location shows the error)."""

    STARTING = "starting"
    SERVING = "serving"
    FAILED = "failed"
    RETIRED = "retired"

    @property
    def is_live(self) -> bool:
        """Whether a job stands behind it, or should."""
        return self in {ServerStatus.STARTING, ServerStatus.SERVING}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeServer:
    """One code server; ``version`` is the location's metadata timestamp that it was started for."""

    key: str
    deployment: str
    location: str
    version: str
    deploy_data: str
    status: ServerStatus
    error: str | None
    created_at: float
    ready_at: float | None = None

    @property
    def log_fields(self) -> Fields:
        """What lines of the log about it carry."""
        return {"key": self.key, "location": self.location, "deployment": self.deployment}


# No more servers of one location start at the same time.
_NEWEST = 10
_COLUMNS = tuple(field.name for field in fields(CodeServer))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM code_servers"  # noqa: S608 - our own column names


def insert(db: Database, server: CodeServer) -> None:
    """Add a server; its job must be there."""
    names = ", ".join(_COLUMNS)
    marks = ", ".join("?" * len(_COLUMNS))
    db.execute(
        f"INSERT INTO code_servers ({names}) VALUES ({marks})",  # noqa: S608
        [_to_column(getattr(server, name)) for name in _COLUMNS],
    )


def change(db: Database, key: str, **changes: Any) -> CodeServer:
    """Change a server and return it."""
    assignments = ", ".join(f"{name} = ?" for name in changes)
    db.execute(
        f"UPDATE code_servers SET {assignments} WHERE key = ?",  # noqa: S608
        [*(_to_column(value) for value in changes.values()), key],
    )
    return _server(db.execute(f"{_SELECT} WHERE key = ?", [key]).fetchone())


def change_from(db: Database, key: str, was: ServerStatus, **changes: Any) -> bool:
    """Change a server whose status this is; return whether it was."""
    server = find(db, key)
    if server is None or server.status is not was:
        return False
    change(db, key, **changes)
    return True


def find(db: Database, key: str) -> CodeServer | None:
    """Return one server."""
    row = db.execute(f"{_SELECT} WHERE key = ?", [key]).fetchone()
    return _server(row) if row else None


def newest_of(db: Database, deployment: str, location: str) -> CodeServer | None:
    """Return the newest server that a code location ever had."""
    row = db.execute(
        f"{_SELECT} WHERE deployment = ? AND location = ? ORDER BY created_at DESC LIMIT 1",
        [deployment, location],
    ).fetchone()
    return _server(row) if row else None


def has_begun_to_serve(db: Database, server: CodeServer, *, since: float) -> bool:
    """Return whether another server of its location, of the newest, has begun to serve since."""
    rows = db.execute(
        "SELECT key, ready_at FROM code_servers WHERE deployment = ? AND location = ? "
        "ORDER BY created_at DESC LIMIT ?",
        [server.deployment, server.location, _NEWEST],
    ).fetchall()
    return any(key != server.key and (ready_at or 0.0) >= since for key, ready_at in rows)


def locations(db: Database) -> list[str]:
    """Return the names of all code locations that have had a server."""
    return [name for (name,) in db.execute("SELECT DISTINCT location FROM code_servers")]


def not_retired(db: Database) -> list[CodeServer]:
    """Return the servers that count, oldest first."""
    rows = db.execute(
        f"{_SELECT} WHERE status != '{ServerStatus.RETIRED.value}' ORDER BY created_at"
    )
    return [_server(row) for row in rows]


def _server(row: tuple[Any, ...]) -> CodeServer:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["status"] = ServerStatus(values["status"])
    return CodeServer(**values)


def _to_column(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
