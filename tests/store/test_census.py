"""What is live is counted, and nothing else."""

from __future__ import annotations

from sqlite_utils import Database

from hpc_agent.slurm.state import JobState
from hpc_agent.store import inbox, outbox, workers
from hpc_agent.store.census import WorkerCount, take_census
from hpc_agent.store.inbox import Request
from hpc_agent.store.outbox import MESSAGES
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.workers import a_worker, put


def add_run(db: Database, key: str, **values: object) -> None:
    given: dict[str, object] = {
        "kind": WorkerKind.RUN_WORKER,
        "deployment": "prod",
        "location": "here",
        "created_at": 1.0,
        "key": key,
    }
    put(db, a_worker(**(given | values)))


def test_workers_are_counted_by_what_they_have_in_common(db: Database) -> None:
    """Those on which the last word is said are history."""
    for number in range(3):
        state = JobState.PENDING if number else JobState.RUNNING
        phase = Phase.QUEUED if number else Phase.RUNNING
        add_run(db, f"run-{number}", phase=phase, job_id=str(number), state=state)
    add_run(db, "run-new", phase=Phase.INTENT, location=None)
    add_run(db, "run-old", phase=Phase.ENDED)
    workers.change(db, "run-old", now=2.0, source="test", concluded_at=2.0)

    def count(phase: str, state: str, location: str, number: int) -> WorkerCount:
        return WorkerCount(
            kind="run_worker", phase=phase, state=state, location=location, number=number
        )

    assert list(take_census(db).workers) == [
        count("intent", "UNKNOWN", "", 1),
        count("queued", "PENDING", "here", 2),
        count("running", "RUNNING", "here", 1),
    ]


def test_waiting_is_counted_with_its_age(db: Database) -> None:
    """Requests, and messages that go out; what is set aside waits no more."""
    assert take_census(db).oldest_request_at is None
    assert take_census(db).outbox.oldest_at is None
    inbox.receive(
        db, [Request(f"r{at}", "PING_LOCATION", "{}", "prod", False, at) for at in (5.0, 4.0)]
    )
    for at in (7.0, 8.0, 9.0):
        outbox.add(
            db, kind="event", deployment="prod", order_key="run:1", idempotency_key=f"m{at}",
            payload="{}", now=at,
        )  # fmt: skip
    (first,) = MESSAGES.heads(db, None, 10)
    MESSAGES.set_aside(db, first, "no")

    census = take_census(db)

    assert (census.requests, census.oldest_request_at) == (2, 4.0)
    assert (census.outbox.waiting, census.outbox.set_aside) == (2, 1)
    assert census.outbox.oldest_at == 8.0
