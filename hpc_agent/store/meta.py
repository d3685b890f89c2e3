"""What the agent remembers of itself: its id, its secret, its lease on the home directory."""

from __future__ import annotations

import os
import secrets
import socket
import uuid
from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.errors import LeaseHeldError

LEASE_SECONDS = 60.0
# Name of a remembered value: what the scheduler's commands print that is no record (JSON).
UNREADABLE = "unreadable"
# And how much the artifacts of runs take (JSON: Usage of jobs/artifacts.py).
ARTIFACTS = "artifacts"
# And whether it takes nothing new (JSON: Drain of store/draining.py).
DRAIN = "drain"
# And how much of each partition was idle (JSON: partition_use.keep_free).
FREE = "free"
# And what is not going well (JSON: agent/troubles.py, and the last errors).
TROUBLES = "troubles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The agent's stable id and the secret from which job tokens are made."""

    agent_id: str
    token_secret: bytes


def identity(db: Database) -> Identity:
    """Return the agent's identity, made at its first start and the same ever after."""
    return Identity(
        agent_id=_remember(db, "agent_id", str(uuid.uuid4())),
        token_secret=bytes.fromhex(_remember(db, "token_secret", secrets.token_hex(32))),
    )


def get(db: Database, name: str) -> str | None:
    """Return a remembered value."""
    row = db.execute("SELECT value FROM meta WHERE name = ?", [name]).fetchone()
    return str(row[0]) if row else None


def put(db: Database, name: str, value: str) -> None:
    """Remember a value."""
    db.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [name, value],
    )


def take_lease(db: Database, owner: str, now: float) -> None:
    """Claim the home directory for ``owner``. Raises LeaseHeldError while another agent is alive.

    A lease of a dead process on this host is taken over at once, one of another host after
    LEASE_SECONDS without a heartbeat.
    """
    row = db.execute("SELECT owner, host, pid, heartbeat_at FROM lease WHERE id = 1").fetchone()
    if row is not None:
        holder, host, pid, heartbeat_at = row
        stale = now - heartbeat_at > LEASE_SECONDS
        dead = host == socket.gethostname() and not _alive(int(pid))
        if holder != owner and not stale and not dead:
            raise LeaseHeldError(
                f"another agent runs with this home directory: process {pid} on {host}, last seen "
                f"{now - heartbeat_at:.0f} s ago. Stop it first, or give this one its own `home`."
            )
    db.execute("DELETE FROM lease")
    db.execute(
        "INSERT INTO lease (id, owner, host, pid, heartbeat_at) VALUES (1, ?, ?, ?, ?)",
        [owner, socket.gethostname(), os.getpid(), now],
    )


def holder(db: Database, now: float) -> tuple[str, int] | None:
    """Return host and process id of the agent that runs with this home, None when none does."""
    row = db.execute("SELECT host, pid, heartbeat_at FROM lease").fetchone()
    if row is None or now - row[2] >= LEASE_SECONDS:
        return None
    return str(row[0]), int(row[1])


def renew_lease(db: Database, owner: str, now: float) -> None:
    """Keep the lease. Raises LeaseHeldError when another agent has taken it meanwhile."""
    renewed = db.execute(
        "UPDATE lease SET heartbeat_at = ? WHERE id = 1 AND owner = ?", [now, owner]
    )
    if renewed.rowcount != 1:
        raise LeaseHeldError("another agent has taken over this home directory")


def release_lease(db: Database, owner: str) -> None:
    """Give the lease back."""
    db.execute("DELETE FROM lease WHERE owner = ?", [owner])


def _remember(db: Database, name: str, value: str) -> str:
    db.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", [name, value])
    return str(db.execute("SELECT value FROM meta WHERE name = ?", [name]).fetchone()[0])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
