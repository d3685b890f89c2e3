"""Whose the state of state-backed definitions is: the location's that first asked for its key."""

from __future__ import annotations

from sqlite_utils import Database


def owner(db: Database, deployment: str, key: str, location: str) -> str:
    """Return the location that a key belongs to; the key of none becomes this one's."""
    db.execute(
        "INSERT OR IGNORE INTO defs_state_owners (deployment, key, location) VALUES (?, ?, ?)",
        [deployment, key, location],
    )
    row = db.execute(
        "SELECT location FROM defs_state_owners WHERE deployment = ? AND key = ?",
        [deployment, key],
    ).fetchone()
    return str(row[0])
