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


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command; ``outcome`` is None until it has been carried out, or has failed."""

    id: int
    kind: CommandKind
    subject: Mapping[str, Any]
    made_at: float
    outcome: str | None = None
    failed: bool = False


def give(db: Database, kind: CommandKind, subject: Mapping[str, Any], now: float) -> int:
    """Ask for something; return the id under which its outcome is found."""
    db.execute("DELETE FROM commands WHERE made_at < ?", [now - _KEEP_SECONDS])
    given = db.execute(
        "INSERT INTO commands (kind, subject, made_at) VALUES (?, ?, ?)",
        [kind.value, json.dumps(subject), now],
    )
    return int(given.lastrowid or 0)


def take_back(db: Database, identity: int) -> bool:
    """Withdraw a command that nobody has carried out; False when somebody has."""
    deleted = db.execute("DELETE FROM commands WHERE id = ? AND done_at IS NULL", [identity])
    return bool(deleted.rowcount)


def to_carry_out(db: Database, now: float) -> list[Command]:
    """Return the commands that wait, the oldest first; those that were given up are not done."""
    found = db.execute(
        "SELECT id, kind, subject, made_at FROM commands WHERE done_at IS NULL AND made_at > ? "
        "ORDER BY id",
        [now - EXPIRE_SECONDS],
    )
    return [
        Command(id=identity, kind=CommandKind(kind), subject=json.loads(subject), made_at=made_at)
        for identity, kind, subject, made_at in found
    ]


def conclude(db: Database, identity: int, outcome: str, *, failed: bool, now: float) -> None:
    """Note how a command went."""
    db.execute(
        "UPDATE commands SET done_at = ?, outcome = ?, failed = ? WHERE id = ?",
        [now, outcome, failed, identity],
    )


def outcome_of(db: Database, identity: int) -> tuple[str, bool] | None:
    """Return what became of a command and whether it failed, None while it waits."""
    row = db.execute(
        "SELECT outcome, failed FROM commands WHERE id = ? AND done_at IS NOT NULL", [identity]
    ).fetchone()
    return (str(row[0]), bool(row[1])) if row else None
