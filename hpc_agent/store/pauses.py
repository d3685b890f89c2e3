"""Code locations whose runs are not submitted, because an operator has paused them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind

# A pause that names no deployment holds for all of them.
EVERY_DEPLOYMENT = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause; ``since`` in seconds since the epoch."""

    location: str
    deployment: str
    since: float


def begin(db: Database, pause: Pause) -> bool:
    """Pause a location; False when it was paused before."""
    added = db.execute(
        "INSERT OR IGNORE INTO pauses (location, deployment, since) VALUES (?, ?, ?)",
        [pause.location, pause.deployment, pause.since],
    )
    return bool(added.rowcount)


def end(db: Database, location: str, deployment: str) -> bool:
    """Let the runs of a location go on; False when it was not paused."""
    given = [location, deployment]
    return bool(
        db.execute("DELETE FROM pauses WHERE location = ? AND deployment = ?", given).rowcount
    )


def all_of(db: Database) -> list[Pause]:
    """Return the pauses, the oldest first."""
    found = db.execute("SELECT location, deployment, since FROM pauses ORDER BY since")
    return [Pause(*row) for row in found]


def held_back(db: Database, pause: Pause) -> list[str]:
    """Return the keys of run workers that would be submitted without this pause."""
    found = db.execute(
        "SELECT key FROM workers WHERE phase = ? AND kind = ? AND location = ? "
        "AND ? IN ('', deployment)",
        [Phase.INTENT.value, WorkerKind.RUN_WORKER.value, pause.location, pause.deployment],
    )
    return [key for (key,) in found]


def condition(db: Database, *, of: str = "workers") -> str:
    """Return what SQL on workers, called ``of`` there, must ask for, so that no paused is found."""
    if db.execute("SELECT 1 FROM pauses LIMIT 1").fetchone() is None:
        return ""
    return (
        f" AND ({of}.kind != '{WorkerKind.RUN_WORKER.value}' OR NOT EXISTS (SELECT 1 FROM pauses "  # noqa: S608
        f"WHERE pauses.location = {of}.location AND pauses.deployment IN ('', {of}.deployment)))"
    )
