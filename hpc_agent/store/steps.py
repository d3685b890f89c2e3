"""The jobs that runs ask for themselves: their steps, and commands of user code."""

from __future__ import annotations

import json

from sqlite_utils import Database

from hpc_agent.store import workers
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


def last_change(db: Database) -> int:
    """Return the number of the last change of any worker; none comes twice."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'worker_history'").fetchone()
    return int(row[0]) if row else 0


def changed_since(db: Database, run_id: str, change: int) -> tuple[int, list[Worker]]:
    """Return the steps of a run that have changed since, and the number of the last change.

    Of a step that the agent has begun again, the newest worker alone. ``change`` 0, or one that is
    yet to come, as after the restore of an older database: all of them.
    """
    newest = last_change(db)
    if not 0 < change <= newest:
        return newest, list(
            workers.select(db, f"{_OF_RUN} AND {_NEWEST} ORDER BY w.rowid", [run_id])
        )
    # From the few changes to their workers: the other way round all steps of the run are read.
    where = (
        "w.key IN (SELECT key FROM worker_history WHERE id > ?) "  # noqa: S608
        f"AND +w.run_id = ? AND +w.step IS NOT NULL AND {_NEWEST} ORDER BY w.rowid"
    )
    return newest, list(workers.select(db, where, [change, run_id]))


def runs_changed_since(db: Database, change: int) -> tuple[int, list[str]]:
    """Return the runs of which steps have changed since, and the number of the last change."""
    found = db.execute(
        "SELECT DISTINCT w.run_id FROM worker_history AS h JOIN workers AS w ON w.key = h.key "
        "WHERE h.id > ? AND w.step IS NOT NULL",
        [change],
    )
    return last_change(db), [run_id for (run_id,) in found]


def open_of(db: Database, run_id: str) -> list[str]:
    """Return the keys of the steps of a run that may go on, or be begun again."""
    found = db.execute(
        "SELECT w.key FROM workers AS w WHERE w.run_id = ? AND w.step IS NOT NULL "
        "AND w.concluded_at IS NULL AND w.terminate_at IS NULL",
        [run_id],
    )
    return [key for (key,) in found]


def may_ask(db: Database, run_id: str) -> bool:
    """Whether a run goes on, so that it may have further jobs."""
    runner = workers.of_run(db, run_id)
    return runner is not None and runner.concluded_at is None and runner.terminate_at is None


def count(db: Database, run_id: str) -> int:
    """Return how many jobs a run has asked for."""
    found = db.execute(f"SELECT count(*) FROM workers AS w WHERE {_OF_RUN}", [run_id])  # noqa: S608
    return int(found.fetchone()[0])


def asked_by(db: Database, worker: Worker) -> list[Worker]:
    """Return the open jobs that a step has asked for, in whichever attempt of the agent's."""
    return list(
        workers.select(
            db,
            "w.key IN (SELECT r.key FROM workers AS asker CROSS JOIN step_requests AS r "
            "ON r.asked_by = asker.key "
            "WHERE asker.run_id = ? AND asker.step = ? AND asker.step_attempt = ?)",
            [worker.run_id, worker.step, worker.step_attempt],
        )
    )


def keep_request(db: Database, key: str, content: str, *, asked_by: str | None = None) -> None:
    """Keep what was asked for, from which a further attempt is planned, and by which job."""
    db.execute(
        "INSERT OR REPLACE INTO step_requests (key, content, asked_by) VALUES (?, ?, ?)",
        [key, content, asked_by],
    )


def request(db: Database, key: str) -> str | None:
    """Return what was asked for when a worker became an intent."""
    row = db.execute("SELECT content FROM step_requests WHERE key = ?", [key]).fetchone()
    return str(row[0]) if row else None


def dagster_steps(db: Database, key: str) -> list[str]:
    """Return the keys of the steps that a job executes, none for a command."""
    content = json.loads(request(db, key) or "{}")
    return [step["key"] for step in content.get("steps", ())] if content.get("arguments") else []


def forget_request(db: Database, key: str) -> None:
    """Forget what was asked for: its worker is concluded."""
    db.execute("DELETE FROM step_requests WHERE key = ?", [key])


def hand_over_request(db: Database, key: str, successor: str) -> None:
    """Let a later attempt have what was asked for."""
    db.execute("UPDATE step_requests SET key = ? WHERE key = ?", [successor, key])
