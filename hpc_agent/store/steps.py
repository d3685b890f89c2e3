"""The jobs that runs ask for themselves: their steps, and commands of user code."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlite_utils import Database

from hpc_agent.store import workers
from hpc_agent.store.phases import LIVE
from hpc_agent.store.workers import Worker

_NEWEST = (
    "w.attempt = (SELECT max(other.attempt) FROM workers AS other WHERE other.run_id = w.run_id "
    "AND other.step = w.step AND other.step_attempt = w.step_attempt)"
)
_OF_RUN = "w.run_id = ? AND w.step IS NOT NULL"


def find(db: Database, run_id: str, step: str, step_attempt: int) -> Worker | None:
    """Return the newest worker of a step, None when the run has not asked for it."""
    found = workers.select(
        db,
        "w.run_id = ? AND w.step = ? AND w.step_attempt = ? ORDER BY w.attempt DESC LIMIT 1",
        [run_id, step, step_attempt],
    )
    return next(found, None)


def changed_since(db: Database, run_id: str, change: int) -> tuple[int, list[Worker]]:
    """Return the steps of a run that have changed since, and the number of the last change.

    Of a step that the agent has begun again, the newest worker alone. ``change`` 0: all of them.
    """
    row = db.execute("SELECT coalesce(max(id), 0) FROM worker_history").fetchone()
    where = f"{_OF_RUN} AND {_NEWEST}"
    values: list[str | int] = [run_id]
    if change:
        where += " AND w.key IN (SELECT key FROM worker_history WHERE id > ?)"
        values.append(change)
    return int(row[0]), list(workers.select(db, f"{where} ORDER BY w.rowid", values))


def live_of(db: Database, run_id: str) -> list[Worker]:
    """Return the steps of a run that are not over and that nobody has asked to end."""
    marks = ", ".join("?" for _ in LIVE)
    where = f"{_OF_RUN} AND w.terminate_at IS NULL AND w.phase IN ({marks})"
    return list(workers.select(db, where, [run_id, *LIVE]))


def count(db: Database, run_id: str) -> int:
    """Return how many jobs a run has asked for."""
    found = db.execute(f"SELECT count(*) FROM workers AS w WHERE {_OF_RUN}", [run_id])  # noqa: S608
    return int(found.fetchone()[0])


def keep_request(db: Database, key: str, content: str) -> None:
    """Keep what was asked for, from which a further attempt is planned."""
    db.execute("INSERT OR REPLACE INTO step_requests (key, content) VALUES (?, ?)", [key, content])


def request(db: Database, key: str) -> str | None:
    """Return what was asked for when a worker became an intent."""
    row = db.execute("SELECT content FROM step_requests WHERE key = ?", [key]).fetchone()
    return str(row[0]) if row else None


def dagster_steps(db: Database, key: str) -> list[str]:
    """Return the keys of the steps that a job executes, none for a command."""
    content = json.loads(request(db, key) or "{}")
    return [step["key"] for step in content.get("steps", ())] if content.get("arguments") else []


def forget_requests(db: Database, keys: Sequence[str]) -> None:
    """Forget what was asked for, of workers that are concluded."""
    marks = ", ".join("?" * len(keys))
    db.execute(f"DELETE FROM step_requests WHERE key IN ({marks})", list(keys))  # noqa: S608
