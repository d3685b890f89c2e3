"""A state database of the time when workers and jobs were one table: nothing of it gets lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from hpc_agent.store import (
    code_servers,
    inbox,
    jobs,
    launches,
    outbox,
    rows,
    submissions,
    tracking,
    workers,
)
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.inbox import Request
from hpc_agent.store.phases import FINAL
from hpc_agent.store.schema import MIGRATIONS
from hpc_agent.store.workers import HistoryEntry, Worker
from tests.workers import a_launch

MIGRATION = "workers_and_jobs"
# A job that was absent begins to be so anew; a clock that stands still while nobody answers was not
# kept then.
NOT_KEPT = {"absent_since"}
OF_A_JOB = {
    "partition",
    "expected_start",
    "cancelled_at",
    "position",
    "position_among",
    "position_partition",
}
DEFAULTS: dict[str, Any] = {
    "kind": "run_worker",
    "deployment": "prod",
    "location": "here",
    "job_name": "nightly",
    "created_at": 100.0,
    "state": "UNKNOWN",
    "likeness": "like this",
    "settings": '[{"option": "mem"}]',
}
PACK = {"job_id": "50", "partition": "batch", "nodes": "c5", "deadline_at": 9000.0}
ROWS: dict[str, dict[str, Any]] = {
    "run-due": {"phase": "intent", "not_before": 130.0, "reason": "MaxSubmitJobs is reached"},
    "run-again": {
        "phase": "intent",
        "attempt": 2,
        "run_id": "run-of-two-attempts",
        "overrides": '{"mem": "8G"}',
    },
    "run-unsure": {"phase": "submitting", "submitting_since": 110.0, "reason": "held back before"},
    "run-queued": {
        "phase": "queued",
        "job_id": "11",
        "state": "PENDING",
        "reason": "Priority",
        "partition": "batch",
        "submitting_since": 111.0,
        "submitted_at": 112.0,
        "expected_start": 500.0,
        "absent_since": 113.0,
        "position": 3,
        "position_among": 7,
        "position_partition": "batch",
    },
    "run-running": {
        "phase": "running",
        "job_id": "12",
        "state": "RUNNING",
        "partition": "batch",
        "nodes": "c1",
        "submitted_at": 112.0,
        "started_at": 120.5,
        "deadline_at": 7200.0,
        "restart_count": 2,
        "terminate_at": 4000.0,
    },
    "run-ended": {
        "phase": "ended",
        "job_id": "13",
        "state": "OUT_OF_MEMORY",
        "nodes": "c2",
        "submitted_at": 112.0,
        "started_at": 120.5,
        "ended_at": 150.0,
        "exit_code": 137,
        "signal": 9,
        "message": "killed",
        "cpu_seconds": 3.5,
        "max_rss_kb": 1024,
    },
    "run-concluded": {
        "phase": "ended",
        "job_id": "14",
        "state": "COMPLETED",
        "run_id": "run-of-two-attempts",
        "submitted_at": 112.0,
        "started_at": 120.5,
        "ended_at": 150.0,
        "exit_code": 0,
        "concluded_at": 151.0,
        "measured_at": 152.0,
    },
    "run-lost": {
        "phase": "lost",
        "job_id": "15",
        "state": "RUNNING",
        "nodes": "c3",
        "submitted_at": 112.0,
        "started_at": 120.5,
        "ended_at": 900.0,
        "message": "nobody knows it",
        "concluded_at": 901.0,
    },
    "run-refused": {
        "phase": "refused",
        "reason": "QOSMaxJobs",
        "message": "invalid partition",
        "ended_at": 115.0,
    },
    "run-cancelled": {
        "phase": "ended",
        "job_id": "16",
        "state": "CANCELLED",
        "submitted_at": 112.0,
        "terminate_at": 140.0,
        "cancelled_at": 141.0,
        "ended_at": 142.0,
    },
    "task-0": {
        "phase": "queued",
        "job_id": "20_0",
        "state": "PENDING",
        "submitted_at": 112.0,
        "array_key": "arr-1",
        "array_index": 0,
    },
    "task-1": {
        "phase": "running",
        "job_id": "20_1",
        "state": "RUNNING",
        "submitted_at": 112.0,
        "started_at": 130.0,
        "array_key": "arr-1",
        "array_index": 1,
    },
    "pck-1": {
        "kind": "pack",
        "phase": "running",
        "deployment": "",
        "location": None,
        "state": "RUNNING",
        "submitted_at": 112.0,
        "started_at": 113.0,
        "pack_options": '{"mem": "4G"}',
        **PACK,
    },
    "srv-packed": {
        "kind": "code_server",
        "phase": "running",
        "state": "RUNNING",
        "submitted_at": 112.0,
        "started_at": 119.0,
        "placement": "packed",
        "pack_key": "pck-1",
        **PACK,
    },
    "srv-alone": {
        "kind": "code_server",
        "phase": "running",
        "placement": "login",
        "job_id": "4711",
        "state": "RUNNING",
        "submitted_at": 112.0,
        "started_at": 119.0,
    },
}
SERVERS = {
    "srv-packed": ("serving", None, 125.0),
    "srv-alone": ("starting", None, None),
}


def insert(db: Database, table: str, **values: Any) -> None:
    rows.insert(db, table, values)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Database]:
    """A database as the agent before wrote it, opened as the agent of now does."""
    db = Database(tmp_path / "agent.db")
    db.execute("PRAGMA foreign_keys=ON")
    MIGRATIONS.apply(db, stop_before=MIGRATION)
    for key, row in ROWS.items():
        values = DEFAULTS | {"key": key, "request_id": f"request of {key}"} | row
        if values["kind"] == "run_worker":
            values.setdefault("run_id", f"id of {key}")
        insert(db, "jobs", **values)
    for number, (key, phase) in enumerate(
        [("run-queued", "intent"), ("run-ended", "queued"), ("run-queued", "queued")], start=40
    ):
        seen = {"at": float(number), "phase": phase, "state": "PENDING", "reason": "Priority"}
        insert(db, "job_states", id=number, key=key, source="squeue", **seen)
    for key, (status, error, ready_at) in SERVERS.items():
        where = {"deployment": "prod", "location": "here", "version": "1.5", "deploy_data": "{}"}
        stands = {"status": status, "error": error, "created_at": 100.0, "ready_at": ready_at}
        insert(db, "code_servers", key=key, **where, **stands)
    for key, api, answered_at in [
        ("request of run-due", "LAUNCH_RUN", None),
        ("request of run-running", "LAUNCH_RUN", 113.0),
        ("request of run-concluded", "LAUNCH_RUN", 151.0),
        ("launch that is no intent yet", "LAUNCH_RUN", None),
        ("question", "CHECK_RUN_HEALTH", None),
    ]:
        came = {"body": "{}", "deployment": "prod", "is_branch_deployment": 0, "received_at": 99.0}
        insert(db, "inbox", request_id=key, api=api, answered_at=answered_at, **came)
    launches.keep(db, a_launch("id of run-queued"), "prod")
    message = {"kind": "event", "deployment": "prod", "order_key": "o", "payload": "{}"}
    insert(db, "outbox", idempotency_key="1", created_at=1.0, **message)
    insert(db, "meta", name="agent_id", value="this one")
    db.conn.commit()
    yield db
    db.close()


@pytest.fixture
def migrated(old: Database) -> Database:
    before = dict(old.execute("SELECT key, rowid FROM jobs ORDER BY rowid"))
    MIGRATIONS.apply(old)
    assert dict(old.execute("SELECT key, rowid FROM workers ORDER BY rowid")) == before
    return old


def as_it_was(worker: Worker, column: str) -> Any:
    """Return what a column of the old table held, as the new records say it."""
    value = getattr(worker.job if column in OF_A_JOB else worker, column, None)
    return getattr(value, "value", value)


@pytest.mark.parametrize("key", ROWS)
def test_every_column_of_every_kind_of_row_is_kept(migrated: Database, key: str) -> None:
    """Whoever asks for it finds it in the worker or in its job."""
    worker = workers.get(migrated, key)
    expected = DEFAULTS | ROWS[key]
    found = {column: as_it_was(worker, column) for column in expected.keys() - NOT_KEPT}
    assert found == {column: expected[column] for column in found}


def test_the_rest_of_a_row_is_as_empty_as_it_was(migrated: Database) -> None:
    """A worker that was not submitted has no job."""
    for key in ("run-due", "run-again", "run-unsure", "run-refused"):
        assert workers.get(migrated, key).job is None
        assert jobs.of_worker(migrated, key) == []


def test_worker_in_a_pack_has_the_job_of_the_pack(migrated: Database) -> None:
    """And none of its own, which somebody would cancel."""
    pack, server = (workers.get(migrated, key) for key in ("pck-1", "srv-packed"))
    assert server.job == pack.job is not None
    assert jobs.of_worker(migrated, "srv-packed") == []
    assert [worker.key for worker in workers.in_pack(migrated, "pck-1")] == ["srv-packed"]
    assert [worker.key for worker in workers.packs(migrated)] == ["pck-1"]


def test_running_is_claimed_and_nothing_else_is(migrated: Database) -> None:
    """There was one job for each worker."""
    claimed = {key for key in ROWS if workers.get(migrated, key).is_claimed}
    assert claimed == {key for key, row in ROWS.items() if row["phase"] == "running"}


def test_jobs_that_may_be_in_the_queue_are_looked_for(migrated: Database) -> None:
    """Also those whose workers have told their end, until they are concluded."""
    tracked = tracking.tracked(migrated, None)
    assert tracked.rows.keys() == {"11", "12", "13", "16", "20_0", "20_1", "50", "4711"}
    assert tracked.in_packs == ("srv-packed",)


def test_loops_go_on_where_they_were(migrated: Database) -> None:
    """What is due, unsure, over, to be measured, and which tasks an array has."""
    assert set(submissions.like(migrated, "like this")) == {"run-due", "run-again"}
    assert submissions.unsure(migrated) == ["run-unsure"]
    to_conclude = {worker.key for worker in workers.in_phase(migrated, *FINAL)}
    assert to_conclude == {"run-refused", "run-ended", "run-cancelled"}
    assert [w.key for w in workers.to_measure(migrated, since=0.0)] == ["run-ended"]
    assert [w.key for w in workers.of_array(migrated, "arr-1")] == ["task-0", "task-1"]
    newest = workers.of_run(migrated, "run-of-two-attempts")
    assert newest is not None and newest.key == "run-again"
    assert tracking.next_deadline(migrated, 1000.0) == 4000.0


def test_history_and_code_servers_are_kept(migrated: Database) -> None:
    """With the numbers that tell what is new."""
    assert workers.history(migrated, "run-queued") == [
        HistoryEntry(40.0, "intent", "PENDING", "Priority", "squeue"),
        HistoryEntry(42.0, "queued", "PENDING", "Priority", "squeue"),
    ]
    assert tracking.last_change(migrated)[0] == 42
    assert {server.key: server for server in code_servers.not_retired(migrated)} == {
        key: CodeServer(
            key=key,
            deployment="prod",
            location="here",
            version="1.5",
            deploy_data="{}",
            status=ServerStatus(status),
            error=error,
            created_at=100.0,
            ready_at=ready_at,
        )
        for key, (status, error, ready_at) in SERVERS.items()
    }


def test_requests_are_served_that_are_no_workers_yet(migrated: Database) -> None:
    """A launch whose worker waits to be submitted is answered by that, and is open until then."""

    def request(key: str, api: str) -> Request:
        return Request(key, api, "{}", "prod", False, 99.0)

    assert inbox.still_to_serve(migrated, inbox.to_serve(migrated)) == [
        request("launch that is no intent yet", "LAUNCH_RUN"),
        request("question", "CHECK_RUN_HEALTH"),
    ]
    assert inbox.is_open(migrated, "request of run-due")
    assert not inbox.is_open(migrated, "request of run-running")
    assert inbox.find(migrated, "request of run-concluded") is not None


def test_what_was_to_be_told_and_remembered_is_kept(migrated: Database) -> None:
    """These tables are as they were."""
    assert launches.find(migrated, "id of run-queued") is not None
    assert [each.key for each in outbox.MESSAGES.heads(migrated, None, 9)] == ["1"]
    assert migrated.execute("SELECT value FROM meta").fetchall() == [("this one",)]


def test_what_belongs_to_a_worker_goes_with_it(migrated: Database) -> None:
    """The new tables refer to each other as the old ones did."""
    assert migrated.execute("PRAGMA foreign_key_check").fetchall() == []
    migrated.execute("DELETE FROM workers WHERE key IN ('run-queued', 'srv-alone')")
    assert workers.history(migrated, "run-queued") == []
    assert jobs.of_worker(migrated, "run-queued") == []
    assert code_servers.find(migrated, "srv-alone") is None


def test_schema_is_the_same_by_whichever_way(migrated: Database, tmp_path: Path) -> None:
    """A new database and a migrated one have the same tables and indices, and no old ones."""
    fresh = Database(tmp_path / "fresh.db")
    MIGRATIONS.apply(fresh)
    query = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY name"
    assert migrated.execute(query).fetchall() == fresh.execute(query).fetchall()
    assert "job_states" not in migrated.table_names()
    fresh.close()


@pytest.mark.timeout(60)
def test_long_history_is_migrated_in_a_moment(tmp_path: Path) -> None:
    """Thirty days of a busy cluster: the work grows with the rows, not with their square."""
    db = Database(tmp_path / "agent.db")
    MIGRATIONS.apply(db, stop_before=MIGRATION)
    db.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) "
        "INSERT INTO jobs (key, kind, phase, deployment, run_id, request_id, created_at, job_id, "
        "state, concluded_at) SELECT 'run-' || i, 'run_worker', 'ended', 'prod', 'id-' || i, "
        "'request-' || i, i, i, 'COMPLETED', i FROM n"
    )
    db.execute(
        "INSERT INTO inbox SELECT request_id, 'LAUNCH_RUN', '{}', 'prod', 0, created_at, NULL "
        "FROM jobs"
    )
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 100_000
        return int(steps > 100_000_000)

    db.conn.set_progress_handler(count, 100_000)
    MIGRATIONS.apply(db)
    assert workers.get(db, "run-30000").job_id == "30000"
    db.close()
