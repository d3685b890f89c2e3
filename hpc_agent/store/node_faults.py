"""Nodes on which jobs fail one after the other through no fault of the jobs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

# One fault may be chance; the second in a row makes a node suspect.
SUSPECT_AFTER = 2
_KEPT_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class NodeFault:
    """How often in a row, when last and why jobs have failed on a node."""

    node: str
    count: int
    last_at: float
    reason: str


def note(db: Database, node: str, reason: str, now: float) -> None:
    """Count one more fault of a node, and forget those that are old."""
    db.execute("DELETE FROM node_faults WHERE last_at < ?", [now - _KEPT_SECONDS])
    db.execute(
        "INSERT INTO node_faults (node, count, last_at, reason) VALUES (?, 1, ?, ?) "
        "ON CONFLICT (node) DO UPDATE SET count = count + 1, last_at = excluded.last_at, "
        "reason = excluded.reason",
        [node, now, reason],
    )


def clear(db: Database, node: str) -> None:
    """Forget the faults of a node on which a job has started."""
    db.execute("DELETE FROM node_faults WHERE node = ?", [node])


def suspects(db: Database, since: float) -> list[NodeFault]:
    """Return the nodes that have failed in a row, the last time since then."""
    found = db.execute(
        "SELECT node, count, last_at, reason FROM node_faults WHERE count >= ? AND last_at >= ? "
        "ORDER BY node",
        [SUSPECT_AFTER, since],
    )
    return [NodeFault(*row) for row in found]


def to_avoid(db: Database, since: float) -> list[str]:
    """Return the names of the nodes to keep off."""
    return [fault.node for fault in suspects(db, since)]
