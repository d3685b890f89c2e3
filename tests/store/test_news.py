"""What a transaction has changed is told when it is kept, whoever has changed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from hpc_agent.agent.bells import Bells
from hpc_agent.store import code_servers, inbox, jobs, outbox, workers
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.inbox import Request
from hpc_agent.store.news import Topic
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, WorkerKind
from tests.code_servers.conftest import rings
from tests.store.test_store import a_run_worker
from tests.workers import put

Work = Callable[[Database], object]
SERVER = CodeServer(
    key="server",
    deployment="prod",
    location="here",
    version="1",
    deploy_data="{}",
    status=ServerStatus.SERVING,
    error=None,
    created_at=1.0,
)


@dataclass(slots=True)
class Heard:
    """A store, and what it has told since it was last asked."""

    store: Store
    told: list[frozenset[Topic]] = field(default_factory=list)

    async def of(self, work: Work) -> frozenset[Topic]:
        """Return what is told of a transaction."""
        self.told.clear()
        await self.store.run(work)
        return frozenset().union(*self.told)


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[Heard]:
    told: list[frozenset[Topic]] = []
    store = Store(tmp_path / "home", on_news=told.append)
    await store.open()
    await store.run(arrange)
    yield Heard(store, told)
    await store.close()


def arrange(db: Database) -> None:
    """A worker in each phase that something is told of."""
    put(db, a_run_worker("due"))
    put(db, a_run_worker("unsure", phase=Phase.SUBMITTING))
    put(db, a_run_worker("queued", phase=Phase.QUEUED, job_id="1"))
    put(db, a_run_worker("running", phase=Phase.RUNNING, job_id="2"))
    put(db, a_run_worker("over", phase=Phase.ENDED, job_id="3"))
    put(db, a_run_worker("server", kind=WorkerKind.CODE_SERVER, phase=Phase.QUEUED, job_id="4"))
    put(db, a_run_worker("step", kind=WorkerKind.STEP, phase=Phase.QUEUED, job_id="6", step="fit"))
    put(db, a_run_worker("pool", kind=WorkerKind.POOL, phase=Phase.QUEUED, job_id="7"))
    put(db, a_run_worker("pack", kind=WorkerKind.PACK, phase=Phase.QUEUED, job_id="5"))
    code_servers.insert(db, SERVER)
    tell(db, "refused")
    db.execute("UPDATE outbox SET refused = 'no'")


def tell(db: Database, key: str) -> None:
    outbox.add(
        db,
        kind=outbox.EVENT,
        deployment="prod",
        order_key="o",
        idempotency_key=key,
        payload="{}",
        now=1.0,
    )


def change(key: str, **changes: Any) -> Work:
    return lambda db: workers.change(db, key, now=2.0, source="test", **changes)


def request(db: Database) -> None:
    inbox.receive(db, [Request("1", "LAUNCH_RUN", "{}", "prod", False, 1.0)])


def claim(db: Database) -> None:
    job = jobs.of_worker(db, "queued")[0]
    workers.set_current(db, "queued", job, is_claimed=True)


CHANGES: list[tuple[str, Work, set[Topic]]] = [
    ("request", request, {Topic.REQUEST}),
    ("message", lambda db: tell(db, "new"), {Topic.MESSAGE}),
    (
        "refused message is sent again",
        lambda db: db.execute("UPDATE outbox SET refused = NULL"),
        {Topic.MESSAGE},
    ),
    ("new intent", lambda db: workers.insert(db, a_run_worker("new")), {Topic.INTENT}),
    (
        "new intent for a pool",
        lambda db: workers.insert(db, a_run_worker("new", placement=Placement.POOL)),
        {Topic.INTENT, Topic.POOL},
    ),
    ("allocation of a pool runs", change("pool", phase=Phase.RUNNING), {Topic.POOL}),
    ("intent again", change("unsure", phase=Phase.INTENT), {Topic.INTENT}),
    ("intent is held back", change("due", not_before=50.0), {Topic.INTENT}),
    ("job", lambda db: jobs.insert(db, "unsure", "9", now=1.0), {Topic.JOB}),
    ("asked to end", change("running", terminate_at=9.0), {Topic.ENDING}),
    ("duplicates may be told", claim, {Topic.ENDING}),
    ("ended", change("running", phase=Phase.ENDED), {Topic.OVER}),
    ("withdrawn", change("due", phase=Phase.WITHDRAWN), {Topic.OVER}),
    ("refused", change("unsure", phase=Phase.REFUSED), {Topic.OVER}),
    ("lost", change("running", phase=Phase.LOST), {Topic.OVER}),
    ("concluded", change("over", concluded_at=9.0), {Topic.CONCLUDED}),
    ("server runs", change("server", phase=Phase.RUNNING), {Topic.SERVER}),
    ("step runs", change("step", phase=Phase.RUNNING), {Topic.STEP}),
    ("step is concluded", change("step", concluded_at=9.0), {Topic.STEP, Topic.CONCLUDED}),
    ("pack runs", change("pack", phase=Phase.RUNNING), {Topic.SERVER}),
    (
        "server is given up",
        lambda db: code_servers.change(db, "server", status=ServerStatus.RETIRED),
        {Topic.SERVER},
    ),
    ("server is over", change("server", phase=Phase.ENDED), {Topic.SERVER, Topic.OVER}),
]
each_change = pytest.mark.parametrize(
    ("work", "topics"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES]
)


def test_every_topic_is_tried() -> None:
    """A new one gets its line above."""
    assert set().union(*(topics for *_, topics in CHANGES)) == set(Topic)


@each_change
async def test_change_is_told_and_nothing_else(
    heard: Heard, work: Work, topics: set[Topic]
) -> None:
    """Once, and not again with the next transaction."""
    assert await heard.of(work) == topics
    assert len(heard.told) == 1
    assert await heard.of(lambda _: None) == set()


@each_change
async def test_change_that_is_taken_back_is_not_told(
    heard: Heard, work: Work, topics: set[Topic]
) -> None:
    """Neither at once nor with what is kept later."""

    def fail(db: Database) -> None:
        work(db)
        raise RuntimeError("halfway")

    heard.told.clear()
    with pytest.raises(RuntimeError):
        await heard.store.run(fail)
    assert heard.told == []
    assert await heard.of(lambda _: None) == set()


@each_change
async def test_change_is_there_for_whoever_is_told(
    tmp_path: Path, work: Work, topics: set[Topic]
) -> None:
    """Another connection sees it: it is told after the commit."""
    reader: list[Database] = []
    seen: list[int] = []

    def look(_: frozenset[Topic]) -> None:
        if reader:
            seen.append(version(reader[0]))

    store = Store(tmp_path / "other", on_news=look)
    await store.open()
    await store.run(arrange)
    reader.append(Database(tmp_path / "other" / "agent.db"))
    before = version(reader[0])
    await store.run(work)
    assert seen and seen[0] != before
    reader[0].close()
    await store.close()


def version(db: Database) -> int:
    """Return a number that changes with each commit of another connection."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


@pytest.mark.parametrize(
    "work",
    [
        lambda db: workers.get(db, "due"),
        change("due", waits_for="Priority"),
        change("due", phase=Phase.SUBMITTING),
        change("queued", message="a word"),
        change("over", phase=Phase.ENDED),
        lambda db: code_servers.change(db, "server", ready_at=2.0),
        lambda db: inbox.mark_answered(db, "1", 2.0),
    ],
    ids=["a look", "a reason", "an attempt", "a message", "the same end", "a time", "an answer"],
)
async def test_what_concerns_nobody_is_not_told(heard: Heard, work: Work) -> None:
    """A loop that was woken for nothing has looked for nothing."""
    assert await heard.of(work) == set()
    assert heard.told == []


async def test_many_changes_are_told_together(heard: Heard) -> None:
    """A thousand launches wake the loop once."""

    def launch(db: Database) -> None:
        for number in range(1000):
            workers.insert(db, a_run_worker(f"new-{number}"))
        request(db)

    assert await heard.of(launch) == {Topic.INTENT, Topic.REQUEST}
    assert len(heard.told) == 1


@pytest.mark.parametrize("topic", Topic)
async def test_every_topic_wakes_somebody(topic: Topic) -> None:
    """What is told to nobody need not be told."""
    bells = Bells()
    bells.ring_for([topic])
    assert any(await asyncio.gather(*(rings(getattr(bells, each.name)) for each in fields(bells))))
