"""What the loops ask again and again costs the same after a month as on the first day."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from hpc_agent.outgoing.queue import Waiting
from hpc_agent.slurm.queue_position import Position
from hpc_agent.store import (
    code_servers,
    commands,
    draining,
    inbox,
    jobs,
    launches,
    meta,
    node_faults,
    outbox,
    pauses,
    queue_positions,
    submissions,
    tracking,
    workers,
)
from hpc_agent.store.phases import FINAL, LIVE, Phase
from hpc_agent.store.schema import MIGRATIONS
from hpc_agent.store.step_bounds import StepBounds
from hpc_agent.store.workers import Worker

CONCLUDED = 5000
LIVE_ROWS = 24
NOW = 100_000.0

Ask = Callable[[Database], object]

ASKED_BY_LOOPS: dict[str, Ask] = {
    "serve": inbox.to_serve,
    "serve: read": lambda db: inbox.still_to_serve(db, ["request of live-due-1"]),
    "serve: launches": inbox.has_launches,
    "submit: single": lambda db: submissions.single(db, NOW),
    "submit: due": lambda db: submissions.due(db, NOW),
    "submit: next due": lambda db: submissions.next_due(db, 1.0),
    "submit: take": lambda db: submissions.take(db, "like", "arr-new", limit=2, now=NOW),
    "submit: no room": lambda db: StepBounds(of_others=2).held_back(db, NOW),
    "submit: to be told": lambda db: submissions.to_be_told(db, "like", "words", 10),
    "submit: like": lambda db: submissions.like(db, "like"),
    "submit: nodes": lambda db: node_faults.to_avoid(db, 0.0),
    "search": submissions.unsure,
    "search: of an array": lambda db: submissions.submission(db, "arr-live"),
    "search: of one": lambda db: submissions.submission(db, "live-unsure-1"),
    "watch": lambda db: tracking.tracked(db, None),
    "watch: workers": lambda db: workers.with_keys(db, ["live-queued-1", "live-running-1"]),
    "cancel": lambda db: tracking.to_cancel(db, NOW),
    "cancel: orders": lambda db: tracking.orders_to_withdraw(db, NOW),
    "cancel: next": lambda db: tracking.next_deadline(db, 1.0),
    "conclude": lambda db: workers.in_phase(db, *FINAL),
    "conclude: rows": lambda db: workers.rows_in_phase(db, *FINAL),
    "measure": lambda db: workers.to_measure(db, since=NOW - 3600),
    "positions": lambda db: queue_positions.waiting(
        db, workers.rows_in_phase(db, Phase.QUEUED), since=NOW
    ),
    "positions: keep": lambda db: queue_positions.keep(
        db, {"live-queued-1": Position(1, 2, "batch"), "live-queued-2": None}
    ),
    "orphans": lambda db: tracking.runs_to_ask_for(db, "", 10),
    "orphans: again": lambda db: tracking.runs_to_ask_for(db, "id of live-queued-9", 100),
    "report": lambda db: outbox.MESSAGES.heads(db, None, 50),
    "report: further": lambda db: outbox.MESSAGES.heads(db, "run:live-due-3", 50),
    "report: next": lambda db: outbox.MESSAGES.next(db, "run:live-due-1"),
    "heartbeat": lambda db: workers.with_rows(db, workers.rows_in_phase(db, *LIVE)),
    "heartbeat: changed": lambda db: tracking.changed_since(db, changes_but(db, 3)),
    "heartbeat: lost": lambda db: workers.lost_since(db, NOW - 600),
    "workspace": code_servers.not_retired,
    "workspace: packs": workers.packs,
    "workspace: in a pack": lambda db: workers.in_pack(db, "live-pack-1"),
    "count": workers.count_by_phase,
    "waits at a start": lambda db: tracking.bound_waits(db, NOW),
    "commands": lambda db: commands.begin(db, NOW),
    "commands: pauses": pauses.all_of,
    "commands: drained": draining.left_to_finish,
}
ASKED_ABOUT_ONE: dict[str, Ask] = {
    "worker": lambda db: workers.get(db, "live-running-1"),
    "run": lambda db: workers.of_run(db, "id of live-running-1"),
    "array": lambda db: workers.of_array(db, "arr-live"),
    "last change": tracking.last_change,
    "some jobs": lambda db: jobs.with_ids(db, [1, 2, 3]),
    "jobs": lambda db: jobs.of_worker(db, "live-running-1"),
    "live job": lambda db: jobs.live_of(db, "live-running-1", "live 7"),
    "history": lambda db: workers.history(db, "live-running-1"),
    "launch": lambda db: launches.find(db, "id of live-running-1"),
    "request": lambda db: inbox.find(db, "request of live-running-1"),
    "open request": lambda db: inbox.is_open(db, "request of live-running-1"),
    "answer": lambda db: inbox.mark_answered(db, "request of live-due-1", NOW),
    "hand over": lambda db: inbox.hand_over(db, "request of live-due-1", "live-due-1"),
    "change": lambda db: workers.change(
        db, "live-due-1", now=NOW, source="test", phase=Phase.SUBMITTING, waits_for="x"
    ),
    "server": lambda db: code_servers.find(db, "live-server-1"),
    "server of a location": lambda db: code_servers.newest_of(db, "prod", "location 1"),
    "servers at once": lambda db: code_servers.has_begun_to_serve(
        db, code_servers.not_retired(db)[0], since=NOW
    ),
    "outbox": lambda db: outbox.has_waiting(db, "run:live-due-1"),
    "by run id": lambda db: workers.named(db, "id of live-running-1"),
    "by job id": lambda db: workers.named(db, "live 7"),
    "identity": meta.identity,
    "forget workers: how many": lambda db: workers.count_forgettable(db, 1000.0),
    "forget requests": lambda db: inbox.purge(db, 1000.0),
    "forget workers": lambda db: workers.purge(db, 1000.0),
}
# A row of constants, names of streams in between, as many rows as nodes fail or are paused places.
NOT_HISTORY = {"CONSTANT", "streams", "node_faults", "pauses"}
# These write, or nothing is there to be found.
FIND_NOTHING = {
    "commands",
    "commands: pauses",
    "submit: nodes",
    "positions: keep",
    "waits at a start",
}
ALL = ASKED_BY_LOOPS | ASKED_ABOUT_ONE

NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
LIFE = {
    "due": "'intent', 'run_worker'",
    "step": "'intent', 'step'",
    "unsure": "'submitting', 'run_worker'",
    "queued": "'queued', 'run_worker'",
    "running": "'running', 'run_worker'",
    "ended": "'ended', 'run_worker'",
    "lost": "'lost', 'run_worker'",
    "server": "'running', 'code_server'",
    "pack": "'running', 'pack'",
    "packed": "'running', 'code_server'",
}


def fill_live(db: Database) -> None:
    """Add some workers of each kind in each phase, none of them concluded."""
    for name, words in LIFE.items():
        of_pack = f"'live-pack-' || (i % {LIVE_ROWS} + 1)" if name == "packed" else "NULL"
        add_workers(db, f"live-{name}-", LIVE_ROWS, words, pack=of_pack)
    for changes, some in (
        ("array_key = 'arr-live'", "key LIKE 'live-unsure-_'"),
        ("likeness = 'like'", "key LIKE 'live-due-_'"),
        ("terminate_at = 2.0", "key LIKE 'live-running-_' OR key LIKE 'live-packed-_'"),
        ("terminate_at = 9.0", "key LIKE 'live-running-__'"),
        ("placement = 'packed'", "key LIKE 'live-packed-%'"),
        ("ended_at = 99000, started_at = 9", "phase IN ('ended', 'lost') AND key LIKE 'live-%'"),
        ("is_claimed = 1", "phase = 'running'"),
    ):
        change(db, "workers", changes, some)
    add_jobs(db, "key LIKE 'live-%' AND phase IN ('queued', 'running', 'ended', 'lost')")
    first = "(SELECT min(id) FROM jobs WHERE NOT is_over)"
    change(db, "jobs", f"job_id = 'live ' || (id - {first})", "NOT is_over")
    change(db, "inbox", "worker_key = NULL", "request_id LIKE '%live-due%'")
    add_messages(db, "key LIKE 'live-due-%'", refused=None)


def fill_history(db: Database) -> None:
    """Add what is left of a month: all of it is over, and nothing is to be done with it."""
    part = CONCLUDED // 5
    for name, words in {
        "measured": "'ended', 'run_worker'",
        "lost": "'lost', 'run_worker'",
        "refused": "'refused', 'run_worker'",
        "pack": "'ended', 'pack'",
        "packed": "'ended', 'code_server'",
    }.items():
        of_pack = "'past-pack-' || (i / 9 + 1)" if name == "packed" else "NULL"
        add_workers(db, f"past-{name}-", part, words, pack=of_pack)
    past = "key LIKE 'past-%'"
    times = "concluded_at = 2000, ended_at = 2000, terminate_at = 1990, started_at = 1900"
    likeness = "array_key = 'arr-' || (rowid / 10), array_index = rowid % 10, likeness = 'like'"
    change(db, "workers", times, past)
    change(db, "workers", f"{likeness}, measured_at = 2000", f"{past} AND kind = 'run_worker'")
    change(db, "code_servers", "status = 'retired'", past)
    change(db, "inbox", "answered_at = 1990", "request_id LIKE '%past%'")
    add_jobs(db, past)
    change(db, "jobs", "is_over = 1", f"worker_{past}")
    add_messages(db, past, refused="no")


def change(db: Database, table: str, changes: str, some: str) -> None:
    db.execute(f"UPDATE {table} SET {changes} WHERE {some}")  # noqa: S608 - our own words


def add_workers(db: Database, prefix: str, count: int, words: str, *, pack: str) -> None:
    """Add workers whose phase and kind are these, with all that hangs on them."""
    names = NUMBERS.format(count=count)
    new = f"FROM workers WHERE key LIKE '{prefix}%'"
    for statement in (
        f"{names} INSERT INTO workers (key, phase, kind, deployment, location, run_id, request_id, "  # noqa: S608
        f"created_at, submitting_since, not_before, pack_key) SELECT '{prefix}' || i, {words}, "
        f"'prod', 'location ' || (i % 7), 'id of {prefix}' || i, 'request of {prefix}' || i, "
        f"i, i, i, {pack} FROM n",
        "INSERT INTO worker_history (key, at, phase, state, reason, source) "
        f"SELECT key, 1.0, phase, 'UNKNOWN', '', 'test' {new}",
        "INSERT INTO inbox (request_id, api, body, deployment, is_branch_deployment, "
        "received_at, worker_key) "
        f"SELECT request_id, 'LAUNCH_RUN', '{{}}', 'prod', 0, created_at, key {new}",
        f"INSERT INTO launches SELECT run_id, 'prod', '{{}}' {new} AND kind = 'run_worker'",
        "INSERT INTO code_servers (key, deployment, location, version, deploy_data, "
        "status, created_at) SELECT key, deployment, location, '1', '{}', 'serving', created_at "
        f"{new} AND kind = 'code_server'",
    ):
        db.execute(statement)


def add_jobs(db: Database, some: str) -> None:
    """Give workers a job each, but for those in packs."""
    db.execute(
        "INSERT INTO jobs (worker_key, job_id, submitted_at) "  # noqa: S608 - our own words
        f"SELECT key, rowid, created_at FROM workers WHERE {some} AND pack_key IS NULL"
    )
    job = "(SELECT id FROM jobs WHERE worker_key = coalesce(workers.pack_key, workers.key))"
    change(db, "workers", f"current_job = {job}", some)


def add_messages(db: Database, some: str, *, refused: str | None) -> None:
    """Let there be something to tell of these workers."""
    db.execute(
        "INSERT INTO outbox (kind, deployment, order_key, idempotency_key, payload, created_at, "  # noqa: S608
        f"refused) SELECT 'event', 'prod', 'run:' || key, key, '{{}}', 1.0, ? FROM workers "
        f"WHERE {some}",
        [refused],
    )


def database(path: Path, *, is_old: bool) -> Database:
    db = Database(path)
    db.execute("PRAGMA foreign_keys=ON")
    MIGRATIONS.apply(db)
    with db.conn:
        if is_old:
            fill_history(db)
        fill_live(db)
    return db


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Live rows alone."""
    db = database(tmp_path_factory.mktemp("young") / "agent.db", is_old=False)
    yield db
    db.close()


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The same live rows after a long history; nobody has called ANALYZE."""
    db = database(tmp_path_factory.mktemp("aged") / "agent.db", is_old=True)
    yield db
    db.close()


def changes_but(db: Database, last: int) -> tuple[int, int]:
    """Return how things stood before the last few changes."""
    of_workers, of_jobs = tracking.last_change(db)
    return of_workers - last, of_jobs - last


def in_vain(db: Database, ask: Ask) -> Any:
    """Ask, and take back what it changes."""
    db.execute("BEGIN")
    try:
        return ask(db)
    finally:
        db.execute("ROLLBACK")


def plan_of(db: Database, ask: Ask) -> dict[str, list[str]]:
    """Return the statements of a question, each with SQLite's plan."""
    statements: list[tuple[str, Any]] = []
    with db.tracer(lambda sql, values: statements.append((sql, values))):
        in_vain(db, ask)
    return {
        sql: [row[3] for row in db.conn.execute(f"EXPLAIN QUERY PLAN {sql}", values or [])]
        for sql, values in statements
        if sql not in {"BEGIN", "ROLLBACK"}
    }


def steps_of(db: Database, ask: Ask) -> int:
    """Return how many steps of its virtual machine SQLite takes, to the next ten."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 10
        return 0

    db.conn.set_progress_handler(count, 10)
    try:
        in_vain(db, ask)
    finally:
        db.conn.set_progress_handler(None, 0)
    return steps


def over_live_rows(db: Database) -> set[str]:
    """Return the indices that hold only some of a table's rows."""
    found = db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'"
    )
    return {name for (name,) in found}


@pytest.mark.parametrize("question", ALL)
def test_no_question_reads_a_whole_table(aged: Database, question: str) -> None:
    """A scan goes over an index of live rows, and none is built for the moment."""
    allowed = over_live_rows(aged)
    for sql, plan in plan_of(aged, ALL[question]).items():
        for step in plan:
            assert "AUTOMATIC" not in step, sql
            scan = re.match(r"SCAN (?:TABLE )?(\w+)(?:.* INDEX (\w+))?", step)
            if scan and scan[1] not in NOT_HISTORY:
                assert scan[2] in allowed, f"{step}: {sql}"


@pytest.mark.parametrize("question", ALL)
def test_history_makes_no_question_dearer(young: Database, aged: Database, question: str) -> None:
    """Counted in steps of SQLite's virtual machine; history of 5,000 would add as many at least."""
    ask = ALL[question]
    assert steps_of(aged, ask) <= 1.2 * steps_of(young, ask) + 200


@pytest.mark.parametrize("question", ASKED_BY_LOOPS)
def test_answers_are_those_of_the_live_rows(young: Database, aged: Database, question: str) -> None:
    """A question that finds nothing would be cheap for the wrong reason."""
    first, second = (in_vain(db, ASKED_BY_LOOPS[question]) for db in (young, aged))
    assert keys_of(first) == keys_of(second)
    assert first or question in FIND_NOTHING


def keys_of(answer: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Return what an answer is about, without numbers of rows."""
    match answer:
        case list() if all(isinstance(each, int) for each in answer):
            return len(answer)
        case list():
            return [keys_of(each) for each in answer]
        case Worker() | Waiting():
            return answer.key
        case tracking.ToCancel():
            return answer.worker.key, answer.job.job_id
        case tracking.Tracked():
            return answer.rows.keys(), answer.in_packs
        case submissions.Submission():
            return keys_of(list(answer.workers))
        case _:
            return answer
