"""Commands of operators to a running agent: written by one process, carried out by another."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

# Longer than an operator waits for the outcome: what is older was given up by whoever asked.
EXPIRE_SECONDS = 60.0
_KEEP_SECONDS = 7 * 24 * 3600.0


class CommandKind(enum.Enum):
    """What can be asked for."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    ACCEPT = "accept"
    GC = "gc"
    ADOPT = "adopt"
    RESUME_POOL = "resume pool"


@dataclass(frozen=True, slots=True)
class Command:
    """One command, as it was given."""

    id: int
    kind: CommandKind
    subject: Mapping[str, Any]


def give(db: Database, kind: CommandKind, subject: Mapping[str, Any], now: float) -> int:
    """Ask for something; return the id under which its outcome is found."""
    db.execute("DELETE FROM commands WHERE made_at < ?", [now - _KEEP_SECONDS])
    given = db.execute(
        "INSERT INTO commands (kind, subject, made_at) VALUES (?, ?, ?)",
        [kind.value, json.dumps(subject), now],
    )
    return int(given.lastrowid or 0)


def take_back(db: Database, identity: int) -> bool:
    """Withdraw a command that nobody has begun with; False when somebody has."""
    deleted = db.execute("DELETE FROM commands WHERE id = ? AND begun_at IS NULL", [identity])
    return bool(deleted.rowcount)


def begin(db: Database, now: float) -> Command | None:
    """Take the oldest command that waits: nobody takes it back from then on.

    Those that were given up by whoever asked, and those that this release does not know, are not
    begun with.
    """
    kinds = [kind.value for kind in CommandKind]
    row = db.execute(
        "SELECT id, kind, subject FROM commands WHERE begun_at IS NULL AND made_at > ? "  # noqa: S608
        f"AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY id LIMIT 1",
        [now - EXPIRE_SECONDS, *kinds],
    ).fetchone()
    if row is None:
        return None
    db.execute("UPDATE commands SET begun_at = ? WHERE id = ?", [now, row[0]])
    return Command(row[0], CommandKind(row[1]), json.loads(row[2]))


def conclude(db: Database, identity: int, outcome: str, *, failed: bool) -> None:
    """Note how a command went."""
    db.execute(
        "UPDATE commands SET outcome = ?, failed = ? WHERE id = ?", [outcome, failed, identity]
    )


def outcome_of(db: Database, identity: int) -> tuple[str, bool] | None:
    """Return what became of a command and whether it failed, None while nothing has."""
    row = db.execute(
        "SELECT outcome, failed FROM commands WHERE id = ? AND outcome IS NOT NULL", [identity]
    ).fetchone()
    return (str(row[0]), bool(row[1])) if row else None
