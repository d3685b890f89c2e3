"""Hand-over: a successor is due in time, and takes over without a moment without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpc_agent.code_servers.handover import is_due
from hpc_agent.code_servers.server_statuses import server_heartbeats
from hpc_agent.dagster_plus.serdes import dumps, error_info
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from tests.agent.conftest import Clock
from tests.code_servers.conftest import Harbour, deployment, entry, fleet_config, make_harbour
from tests.workers import a_worker

HOUR = 3600.0
SERVER = CodeServer(
    key="srv-1",
    deployment="prod",
    location="a",
    version="1",
    deploy_data="{}",
    status=ServerStatus.SERVING,
    error=None,
    created_at=0.0,
    ready_at=130.0,
)


def running(**changes: Any) -> Worker:
    """Return the server's worker, whose job runs for eight hours."""
    values: dict[str, Any] = {
        "key": "srv-1",
        "kind": WorkerKind.CODE_SERVER,
        "phase": Phase.RUNNING,
        "deployment": "prod",
        "location": "a",
        "created_at": 0.0,
        "job_id": "17",
        "submitted_at": 10.0,
        "started_at": 100.0,
        "deadline_at": 100.0 + 8 * HOUR,
    }
    return a_worker(**(values | changes))


def due_after(worker: Worker, *, handover_seconds: float | None = None) -> float:
    """Return how many seconds after the job's start a successor is due, by bisection."""
    assert worker.started_at is not None and worker.deadline_at is not None
    low, high = 0.0, worker.deadline_at - worker.started_at + 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        due = is_due(
            SERVER,
            worker,
            now=worker.started_at + middle,
            drain_seconds=180.0,
            handover_seconds=handover_seconds,
        )
        low, high = (low, middle) if due else (middle, high)
    return high


def test_successor_gets_twice_the_way_up_and_time_to_drain() -> None:
    """120 s from submission to the first answer, twice; 180 s to drain; 30 s to be safe."""
    assert due_after(running()) == pytest.approx(8 * HOUR - 2 * 120 - 180 - 30, abs=0.1)


def test_configured_time_wins() -> None:
    """A site that knows its queue says so."""
    assert due_after(running(), handover_seconds=HOUR) == pytest.approx(7 * HOUR, abs=0.1)


@pytest.mark.parametrize("handover_seconds", [None, HOUR])
def test_short_limit_is_shared_by_halves(handover_seconds: float | None) -> None:
    """Else each server would need its successor at once."""
    short = running(deadline_at=220.0)
    assert due_after(short, handover_seconds=handover_seconds) == pytest.approx(60, abs=0.1)


@pytest.mark.parametrize("worker", [running(deadline_at=None), running(started_at=None)])
def test_without_a_known_end_there_is_no_hand_over(worker: Worker) -> None:
    """An unlimited partition, or a record that has not been seen yet."""
    assert not is_due(SERVER, worker, now=1e12, drain_seconds=180.0, handover_seconds=None)


PLACE = ("prod", "a")
PROD = deployment("prod", entry("a"))


async def harbour_at_the_end_of_a_limit(tmp_path: Path, store: Store) -> tuple[Harbour, CodeServer]:
    """A location whose server's job has a minute left of an hour."""
    harbour = make_harbour(fleet_config(tmp_path), store, Clock())
    await harbour.reconcile(PROD)
    server = await harbour.serve(PLACE)
    started = harbour.clock.now
    await harbour.let_run(server.key, started_at=started, deadline_at=started + HOUR)
    harbour.clock.now += HOUR - 60
    return harbour, server


async def test_successor_comes_up_beside_the_incumbent(tmp_path: Path, store: Store) -> None:
    """Calls go to the old server until the new one is up, then to that; the old one goes."""
    harbour, old = await harbour_at_the_end_of_a_limit(tmp_path, store)
    states = await harbour.reconcile(PROD)
    new = states[0].server
    assert new is not None and new.key != old.key
    assert states[0].incumbent is not None and states[0].incumbent.key == old.key
    heartbeat = server_heartbeats(states, "prod")[0]
    assert heartbeat["server_status"] == {"__enum__": "CloudCodeServerStatus.RUNNING"}
    assert "job 17" in heartbeat["metadata"]["message"]
    assert "its successor: waiting to be submitted" in heartbeat["metadata"]["message"]
    async with harbour.calls.use(PLACE, is_branch=False, wait_seconds=0) as client:
        assert client is harbour.channels.client(old.key)

    await harbour.serve(PLACE)
    async with harbour.calls.use(PLACE, is_branch=False, wait_seconds=0) as client:
        assert client is harbour.channels.client(new.key)
    assert [server.key for server in await harbour.servers()] == [new.key]
    await harbour.channels.close()


async def test_one_successor_is_enough(tmp_path: Path, store: Store) -> None:
    """While it is on its way, no other one is started."""
    harbour, _ = await harbour_at_the_end_of_a_limit(tmp_path, store)
    for _ in range(3):
        await harbour.reconcile(PROD)
    assert len(await harbour.servers()) == 2


async def test_successor_that_fails_leaves_the_location_to_the_incumbent(
    tmp_path: Path, store: Store
) -> None:
    """The location shows no error; the next successor is tried after a wait."""
    harbour, old = await harbour_at_the_end_of_a_limit(tmp_path, store)
    await harbour.reconcile(PROD)
    new = (await harbour.servers())[-1]
    fails = await harbour.life.mark_failed(new, dumps(error_info("no")), restart=False)
    assert not fails
    assert [server.key for server in await harbour.servers()] == [old.key]
    await harbour.reconcile(PROD)
    assert [server.key for server in await harbour.servers()] == [old.key]
    harbour.clock.now += 2
    await harbour.reconcile(PROD)
    assert len(await harbour.servers()) == 2
