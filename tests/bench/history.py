"""A state database as it is after some months, written by SQL: nothing of it has happened."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from sqlite_utils import Database

from hpc_agent.store.database import FILE_NAME
from hpc_agent.store.schema import MIGRATIONS

LIKENESS = "all alike"
# About as long as what a launch says in reality.
_BODY = '{"__class__": "UserCloudAgentRequest", "text": "' + "x" * 2000 + '"}'
_NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "


def write_history(home: Path, concluded: int) -> None:
    """Write a database with so many run workers that are over and concluded.

    Each has had a job, four changes and a launch; a part of the requests is there still. Besides,
    a thousand code servers have retired and a thousand messages are set aside.
    """
    home.mkdir(parents=True)
    db = Database(home / FILE_NAME)
    db.execute("PRAGMA journal_mode=WAL")
    MIGRATIONS.apply(db)
    now = time.time()
    with db.conn:
        _workers(db, "past-run", concluded, phase="ended", at=now - 30 * 86400)
        _servers(db, "past-srv", 1000, at=now - 30 * 86400)
        for statement in (
            "UPDATE workers SET concluded_at = created_at + 70, ended_at = created_at + 60, "
            "started_at = created_at + 10, measured_at = created_at + 90, outcome = 'COMPLETED', "
            "array_key = 'arr-' || (rowid / 10), array_index = rowid % 10, is_claimed = 1, "
            "terminate_at = CASE WHEN rowid % 10 = 0 THEN created_at + 50 END",
            "UPDATE code_servers SET status = 'retired'",
        ):
            db.execute(statement)
        _jobs(db, "past-%", over=1)
        for phase in ("queued", "running", "ended"):
            _remember(db, "past-%", phase)
        _requests(db, "past-run-%", "answered_at, worker_key", "created_at + 2, key", limit=10_000)
        _messages(db, "past-srv-%", refused="no")
    db.close()


def with_intents(old: Path, home: Path, count: int) -> Path:
    """Copy a history and add intents of one likeness that a submit limit holds back.

    As many launches have come in of which nothing is known yet.
    """
    db = _copy(old, home)
    now = time.time()
    with db.conn:
        _workers(db, "run", count, phase="intent", at=now - 600)
        _requests(db, "run-%", "worker_key", "key", limit=count)
        db.execute(
            "UPDATE workers SET likeness = ?, waits_for = 'QOSMaxSubmitJobPerUserLimit' "
            "WHERE phase = 'intent'",
            [LIKENESS],
        )
        _further(db, now)
    db.close()
    return home


def with_queued(old: Path, home: Path, count: int) -> Path:
    """Copy a history and add workers whose jobs wait in Slurm's queue."""
    db = _copy(old, home)
    now = time.time()
    with db.conn:
        _workers(db, "run", count, phase="queued", at=now - 600)
        _jobs(db, "run-%", over=0)
        db.execute("UPDATE jobs SET state = 'PENDING', reason = 'Priority' WHERE NOT is_over")
        _remember(db, "run-%", "queued")
        _messages(db, "run-%", refused=None)
        _further(db, now)
    db.close()
    return home


def _copy(old: Path, home: Path) -> Database:
    home.mkdir(parents=True)
    shutil.copy(old / FILE_NAME, home / FILE_NAME)
    return Database(home / FILE_NAME)


def _further(db: Database, now: float) -> None:
    """Add what else lives: twenty code servers, and twenty runs that are over a moment ago."""
    _servers(db, "srv", 20, at=now - 600)
    _jobs(db, "srv-%", over=0)
    _workers(db, "end", 20, phase="ended", at=now - 600)
    db.execute(
        "UPDATE workers SET ended_at = ?, started_at = created_at, outcome = 'FAILED' "
        "WHERE key LIKE 'end-%'",
        [now - 60],
    )
    _jobs(db, "end-%", over=0)


def _workers(db: Database, name: str, count: int, *, phase: str, at: float) -> None:
    db.execute(
        f"{_NUMBERS.format(count=count)} INSERT INTO workers (key, kind, phase, deployment, "  # noqa: S608 - our own words
        "location, run_id, job_name, request_id, created_at, submitting_since, settings) "
        f"SELECT '{name}-' || i, 'run_worker', ?, 'prod', 'location ' || (i % 7), "
        f"'id of {name}-' || i, 'some_job', 'request of {name}-' || i, ? + i / 1000.0, ?, '[]' "
        "FROM n",
        [phase, at, at],
    )
    db.execute(
        "INSERT INTO launches SELECT run_id, 'prod', ? FROM workers WHERE key LIKE ?",
        [_BODY, f"{name}-%"],
    )
    _remember(db, f"{name}-%", "intent")


def _servers(db: Database, name: str, count: int, *, at: float) -> None:
    db.execute(
        f"{_NUMBERS.format(count=count)} INSERT INTO workers (key, kind, phase, deployment, "  # noqa: S608
        f"location, created_at, is_claimed) SELECT '{name}-' || i, 'code_server', 'running', "
        "'prod', 'location ' || i, ?, 1 FROM n",
        [at],
    )
    db.execute(
        "INSERT INTO code_servers (key, deployment, location, version, deploy_data, status, "
        "created_at) SELECT key, deployment, location, '1', '{}', 'serving', created_at "
        "FROM workers WHERE key LIKE ?",
        [f"{name}-%"],
    )


def _jobs(db: Database, some: str, *, over: int) -> None:
    db.execute(
        "INSERT INTO jobs (worker_key, job_id, submitted_at, is_over) "
        "SELECT key, rowid, created_at, ? FROM workers WHERE key LIKE ?",
        [over, some],
    )
    db.execute(
        "UPDATE workers SET current_job = (SELECT id FROM jobs WHERE worker_key = workers.key) "
        "WHERE key LIKE ?",
        [some],
    )


def _remember(db: Database, some: str, phase: str) -> None:
    db.execute(
        "INSERT INTO worker_history (key, at, phase, state, reason, source) "
        "SELECT key, created_at, ?, '', '', 'bench' FROM workers WHERE key LIKE ?",
        [phase, some],
    )


def _requests(db: Database, some: str, names: str, values: str, *, limit: int) -> None:
    db.execute(
        "INSERT INTO inbox (request_id, api, body, deployment, is_branch_deployment, "  # noqa: S608
        f"received_at, {names}) SELECT request_id, 'LAUNCH_RUN', ?, 'prod', 0, created_at, "
        f"{values} FROM workers WHERE key LIKE ? LIMIT {limit}",
        [_BODY, some],
    )


def _messages(db: Database, some: str, *, refused: str | None) -> None:
    db.execute(
        "INSERT INTO outbox (kind, deployment, order_key, idempotency_key, payload, created_at, "
        "refused, refused_at) SELECT 'event', 'prod', 'run:' || key, key, ?, created_at, ?, ? "
        "FROM workers WHERE key LIKE ?",
        [_BODY, refused, None if refused is None else 1.0, some],
    )
