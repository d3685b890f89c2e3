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
from hpc_agent.store import inbox, jobs, meta, outbox
from hpc_agent.store.database import Store, read_only
from hpc_agent.store.filesystem import filesystem_type
from hpc_agent.store.inbox import Request
from hpc_agent.store.jobs import Job, JobKind, Phase


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "home")
    await opened.open()
    yield opened
    await opened.close()


def a_job(key: str = "run-1", **changes: Any) -> Job:
    values: dict[str, Any] = {
        "key": key,
        "kind": JobKind.RUN_WORKER,
        "phase": Phase.INTENT,
        "deployment": "prod",
        "location": "here",
        "run_id": f"id of {key}",
        "created_at": 100.0,
    }
    return Job(**(values | changes))


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
    assert await store.run(inbox.unanswered) == [a_request()]


async def test_answer_is_given_once(store: Store) -> None:
    """Only the first answer counts."""
    await store.run(lambda db: inbox.receive(db, [a_request()]))
    assert await store.run(lambda db: inbox.mark_answered(db, "1", 2.0))
    assert not await store.run(lambda db: inbox.mark_answered(db, "1", 3.0))
    assert await store.run(inbox.unanswered) == []


async def test_failed_work_leaves_nothing_behind(store: Store) -> None:
    """A unit of work is one transaction."""

    def half(db: Database) -> None:
        jobs.insert(db, a_job())
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError):
        await store.run(half)
    assert await store.run(lambda db: jobs.find(db, "run-1")) is None


async def test_state_survives_a_restart(tmp_path: Path) -> None:
    """What was written is there after the process is gone."""
    first = Store(tmp_path)
    await first.open()
    await first.run(lambda db: jobs.insert(db, a_job()))
    identity = await first.run(meta.identity)
    await first.close()
    second = Store(tmp_path)
    await second.open()
    assert await second.run(lambda db: jobs.get(db, "run-1")) == a_job()
    assert await second.run(meta.identity) == identity
    await second.close()


async def test_intent_key_is_unique(store: Store) -> None:
    """The same run can never become two jobs."""
    assert await store.run(lambda db: jobs.insert(db, a_job()))
    assert not await store.run(lambda db: jobs.insert(db, a_job(created_at=200.0)))
    assert (await store.run(lambda db: jobs.get(db, "run-1"))).created_at == 100.0


async def test_history_keeps_every_change_of_state_and_no_other(store: Store) -> None:
    """A change that changes nothing leaves no entry."""

    def live(db: Database) -> list[str]:
        jobs.insert(db, a_job())
        jobs.change(db, "run-1", now=1.0, source="sbatch", phase=Phase.QUEUED, job_id="7")
        jobs.change(db, "run-1", now=2.0, source="squeue", reason="Priority")
        jobs.change(db, "run-1", now=3.0, source="squeue", reason="Priority")
        jobs.change(
            db, "run-1", now=4.0, source="node", phase=Phase.RUNNING, state=JobState.RUNNING
        )
        return [f"{entry.source}:{entry.phase}" for entry in jobs.history(db, "run-1")]

    assert await store.run(live) == [
        "agent:intent",
        "sbatch:queued",
        "squeue:queued",
        "node:running",
    ]


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"phase": Phase.QUEUED, "job_id": "7", "terminate_at": 50.0}, True),
        ({"phase": Phase.RUNNING, "job_id": "7", "terminate_at": 150.0}, False),
        ({"phase": Phase.ENDED, "job_id": "7", "terminate_at": 150.0}, True),
        ({"phase": Phase.QUEUED, "job_id": "7"}, False),
        ({"phase": Phase.SUBMITTING, "terminate_at": 50.0}, False),
        ({"phase": Phase.QUEUED, "job_id": "7", "terminate_at": 1.0, "cancelled_at": 2.0}, False),
    ],
)
async def test_jobs_to_cancel(store: Store, changes: dict[str, Any], due: bool) -> None:
    """Cancelled is what was asked to end and has had its time, once."""
    await store.run(lambda db: jobs.insert(db, a_job(**changes)))
    assert bool(await store.run(lambda db: jobs.to_cancel(db, 100.0))) is due


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
