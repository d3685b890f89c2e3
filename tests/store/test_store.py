"""The state database, always a real SQLite file."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from hpc_agent.errors import LeaseHeldError, StoreError
from hpc_agent.slurm.state import JobState
from hpc_agent.store import inbox, jobs, launches, meta, outbox, tracking, workers
from hpc_agent.store.database import Store, read_only
from hpc_agent.store.filesystem import filesystem_type
from hpc_agent.store.inbox import Request
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from tests.workers import a_launch, a_worker, put


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "home")
    await opened.open()
    yield opened
    await opened.close()


def a_run_worker(key: str = "run-1", **changes: Any) -> Worker:
    values: dict[str, Any] = {
        "key": key,
        "kind": WorkerKind.RUN_WORKER,
        "phase": Phase.INTENT,
        "deployment": "prod",
        "location": "here",
        "run_id": f"id of {key}",
        "created_at": 100.0,
    }
    return a_worker(**(values | changes))


COMPLETING: dict[str, Any] = {
    "phase": Phase.RUNNING,
    "job_id": "7",
    "state": JobState.COMPLETING,
}


def pid_of_the_dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def a_request(request_id: str = "1") -> Request:
    return Request(request_id, "LAUNCH_RUN", "{}", "prod", False, 1.0)


async def test_request_handed_out_twice_is_kept_once(store: Store) -> None:
    """At-least-once delivery becomes exactly-once here."""
    assert await store.run(lambda db: inbox.receive(db, [a_request()])) == [a_request()]
    assert await store.run(lambda db: inbox.receive(db, [a_request()])) == []
    assert await store.run(inbox.to_serve) == ["1"]
    assert await store.run(lambda db: inbox.still_to_serve(db, ["1", "2"])) == [a_request()]


async def test_answer_is_given_once(store: Store) -> None:
    """Only the first answer counts."""
    await store.run(lambda db: inbox.receive(db, [a_request()]))
    assert await store.run(lambda db: inbox.mark_answered(db, "1", 2.0))
    assert not await store.run(lambda db: inbox.mark_answered(db, "1", 3.0))
    assert await store.run(inbox.to_serve) == []


async def test_failed_work_leaves_nothing_behind(store: Store) -> None:
    """A unit of work is one transaction."""

    def half(db: Database) -> None:
        workers.insert(db, a_run_worker())
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError):
        await store.run(half)
    assert await store.run(lambda db: workers.find(db, "run-1")) is None


async def test_state_survives_a_restart(tmp_path: Path) -> None:
    """What was written is there after the process is gone."""
    first = Store(tmp_path)
    await first.open()
    await first.run(lambda db: workers.insert(db, a_run_worker()))
    identity = await first.run(meta.identity)
    await first.close()
    second = Store(tmp_path)
    await second.open()
    assert await second.run(lambda db: workers.get(db, "run-1")) == a_run_worker()
    assert await second.run(meta.identity) == identity
    await second.close()


async def test_intent_key_is_unique(store: Store) -> None:
    """The same run can never become two jobs."""
    assert await store.run(lambda db: workers.insert(db, a_run_worker()))
    assert not await store.run(lambda db: workers.insert(db, a_run_worker(created_at=200.0)))
    assert (await store.run(lambda db: workers.get(db, "run-1"))).created_at == 100.0


async def test_history_keeps_every_change_of_state_and_no_other(store: Store) -> None:
    """A change that changes nothing leaves no entry."""

    def live(db: Database) -> list[str]:
        workers.insert(db, a_run_worker())
        job = jobs.insert(db, "run-1", "7", now=1.0)
        workers.set_current(db, "run-1", job, is_claimed=False)
        workers.change(db, "run-1", now=1.0, source="sbatch", phase=Phase.QUEUED)
        for now in (2.0, 3.0):
            before = workers.get(db, "run-1")
            jobs.change(db, job.id, reason="Priority", expected_start=now)
            workers.note(db, before, now=now, source="squeue")
        workers.change(db, "run-1", now=4.0, source="node", phase=Phase.RUNNING)
        return [f"{entry.source}:{entry.phase}" for entry in workers.history(db, "run-1")]

    assert await store.run(live) == [
        "agent:intent",
        "sbatch:queued",
        "squeue:queued",
        "node:running",
    ]


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"phase": Phase.QUEUED, "job_id": "7", "terminate_at": 850.0}, True),
        ({"phase": Phase.RUNNING, "job_id": "7", "terminate_at": 950.0}, False),
        ({"phase": Phase.ENDED, "job_id": "7", "is_over": False, "terminate_at": 950.0}, True),
        ({"phase": Phase.ENDED, "job_id": "7", "is_over": True, "terminate_at": 950.0}, False),
        ({"phase": Phase.ENDED, "job_id": "7", "is_over": False, "ended_at": 700.0}, True),
        ({"phase": Phase.ENDED, "job_id": "7", "is_over": False, "ended_at": 890.0}, False),
        ({"phase": Phase.QUEUED, "job_id": "7"}, False),
        ({"phase": Phase.SUBMITTING, "terminate_at": 850.0}, False),
        ({"phase": Phase.QUEUED, "job_id": "7", "terminate_at": 1.0, "cancelled_at": 890.0}, False),
        ({"phase": Phase.QUEUED, "job_id": "7", "terminate_at": 1.0, "cancelled_at": 800.0}, True),
        ({**COMPLETING, "terminate_at": 850.0}, True),
        ({**COMPLETING, "terminate_at": 1.0, "cancelled_at": 800.0}, False),
        ({**COMPLETING, "terminate_at": 1.0, "cancelled_at": 299.0}, True),
    ],
)
async def test_jobs_to_cancel(store: Store, changes: dict[str, Any], due: bool) -> None:
    """What was asked to end and has had its time, what outlives its worker; again after a while."""
    await store.run(lambda db: put(db, a_run_worker(**changes)))
    found = await store.run(lambda db: tracking.to_cancel(db, 900.0))
    assert [(each.worker.key, each.job.job_id) for each in found] == [("run-1", "7")] * due


async def test_duplicates_are_cancelled(store: Store) -> None:
    """All jobs of a worker but the one that holds the claim; before one does, none."""

    def live(db: Database) -> list[list[str]]:
        put(db, a_run_worker(phase=Phase.QUEUED, job_id="7"))
        second = jobs.insert(db, "run-1", "8", now=2.0)
        before = tracking.to_cancel(db, 900.0)
        workers.set_current(db, "run-1", second, is_claimed=True)
        after = tracking.to_cancel(db, 900.0)
        assert all(each.is_duplicate for each in after)
        return [[each.job.job_id for each in found] for found in (before, after)]

    assert await store.run(live) == [[], ["7"]]


async def test_what_is_long_over_is_forgotten(store: Store) -> None:
    """An array and a run's launch go with the last of their workers."""
    now, long_ago = 1e9, 1e9 - workers.KEEP_CONCLUDED_SECONDS - 1
    over = {"phase": Phase.ENDED, "job_id": "7", "array_key": "arr-1"}

    def live(db: Database) -> list[set[str]]:
        launches.keep(db, a_launch("r"), "prod")
        put(db, a_run_worker("run-1", run_id="r", concluded_at=long_ago, **over))
        put(db, a_run_worker("run-2", run_id="r", concluded_at=now - 1, **over))
        first = workers.purge(db, now - workers.KEEP_CONCLUDED_SECONDS)
        assert launches.find(db, "r") is not None
        second = workers.purge(db, now)
        assert launches.find(db, "r") is None
        return [set(first), set(second)]

    assert await store.run(live) == [{"run-1"}, {"run-2", "arr-1"}]


async def test_steps_are_forgotten_after_their_run(store: Store) -> None:
    """All of them at once, in parts: a run that goes on may ask what has become of one."""
    over: dict[str, Any] = {"phase": Phase.ENDED, "run_id": "r", "concluded_at": 1.0}
    of_step = over | {"kind": WorkerKind.STEP, "step": "fit"}

    def live(db: Database) -> None:
        launches.keep(db, a_launch("r"), "prod")
        put(db, a_run_worker("run-1", **over))
        put(db, a_run_worker("run-2", **over | {"attempt": 2, "concluded_at": 5.0}))
        put(db, a_run_worker("fit-1", **of_step))
        put(db, a_run_worker("fit-2", **of_step | {"attempt": 2, "concluded_at": None}))
        for before, forgotten in ((3.0, ["run-1"]), (9.0, ["run-2"])):
            assert workers.count_forgettable(db, before) == 1
            assert workers.purge(db, before) == forgotten
            assert workers.purge(db, before) == []
        workers.change(db, "fit-2", now=6.0, source="agent", concluded_at=6.0)
        assert workers.count_forgettable(db, 9.0) == 2
        assert workers.purge(db, 9.0, limit=1) == ["fit-1"]
        assert workers.purge(db, 9.0) == ["fit-2"]

    await store.run(live)


async def test_outbox_keeps_a_message_once(store: Store) -> None:
    """The idempotency key is the message's identity."""

    def add_twice(db: Database) -> int:
        for _ in range(2):
            outbox.add(
                db,
                kind=outbox.EVENT,
                deployment="prod",
                order_key="run:1",
                idempotency_key="the same",
                payload="{}",
                now=1.0,
            )
        return outbox.count_waiting(db)

    assert await store.run(add_twice) == 1


async def test_second_agent_is_kept_out(store: Store) -> None:
    """A live agent's lease is not taken over; that of a dead process is, at once."""
    await store.run(lambda db: meta.take_lease(db, "first", 100.0))
    with pytest.raises(LeaseHeldError, match=f"process {os.getpid()}"):
        await store.run(lambda db: meta.take_lease(db, "second", 101.0))
    await store.run(lambda db: db.execute("UPDATE lease SET pid = ?", [pid_of_the_dead()]))
    await store.run(lambda db: meta.take_lease(db, "second", 102.0))
    with pytest.raises(LeaseHeldError):
        await store.run(lambda db: meta.renew_lease(db, "first", 103.0))


async def test_lease_of_another_host_runs_out(store: Store) -> None:
    """Whether a process elsewhere lives shows in its heartbeat alone."""
    await store.run(lambda db: meta.take_lease(db, "first", 100.0))
    await store.run(
        lambda db: db.execute("UPDATE lease SET host = ?", [f"not-{socket.gethostname()}"])
    )
    with pytest.raises(LeaseHeldError):
        await store.run(lambda db: meta.take_lease(db, "second", 130.0))
    await store.run(lambda db: meta.take_lease(db, "second", 161.0))


def test_reading_what_is_not_there_says_so(tmp_path: Path) -> None:
    """``hpc-agent status`` before the first start is a message."""
    with pytest.raises(StoreError, match="no agent has run"):
        read_only(tmp_path)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/state", "nfs4"),
        ("/home/me/local disk/x", "ext4"),
        ("/var/lib/x", "overlay"),
    ],
)
def test_file_system_of_a_path(path: str, kind: str) -> None:
    """The deepest mount point that holds the path counts."""
    mounts = (
        "overlay / overlay rw 0 0\n"
        "server:/home /home nfs4 rw 0 0\n"
        "/dev/sda1 /home/me/local\\040disk ext4 rw 0 0\n"
    )
    assert filesystem_type(Path(path), mounts) == kind
