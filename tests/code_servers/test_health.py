"""A code server that lives but does not answer is found out; a busy one is left alone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.agent.bells import Bells
from hpc_agent.code_servers.channels import Channels
from hpc_agent.code_servers.health import Health
from hpc_agent.code_servers.server_statuses import server_heartbeats
from hpc_agent.errors import CodeServerUnavailableError
from hpc_agent.slurm.state import JobState
from hpc_agent.store import workers
from hpc_agent.store.code_servers import ServerStatus
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.workers.change import Change
from tests.agent.conftest import Clock
from tests.code_servers.conftest import (
    Tunnels,
    deployment,
    entry,
    fleet_config,
    make_harbour,
    rings,
)

KEY = "srv-1"
PLACE = ("prod", "a")
# Pings of half a second: an answer takes a tenth of that at most.
PATIENCE_SECONDS = 1.5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real ``dagster api grpc`` on the socket ``server.sock``."""
    code = tmp_path / "defs.py"
    code.write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
    argv = [sys.executable, "-m", "dagster", "api", "grpc", "--python-file", str(code)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, "--socket", str(tmp_path / "server.sock")], stdout=log, stderr=log
        )
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def channels(tmp_path: Path) -> Channels:
    return Channels(Tunnels(tmp_path, socket=tmp_path / "server.sock"))


async def test_stopped_process_is_silent_for_too_long(
    server: subprocess.Popen[bytes], channels: Channels
) -> None:
    """Three pings in a row, and the seconds that were asked for; then the count says so."""
    clock = Clock()
    health = Health(channels, patience_seconds=PATIENCE_SECONDS, clock=clock)
    await channels.client(KEY).ping(deadline_seconds=60)
    assert await health.check(KEY) is None

    os.kill(server.pid, signal.SIGSTOP)
    for _ in range(2):
        assert await health.check(KEY) is None
        clock.now += 10
    assert await health.check(KEY) == 20
    await channels.close()


async def test_answer_ends_the_silence(server: subprocess.Popen[bytes], channels: Channels) -> None:
    """A server that was held up for a while starts afresh."""
    clock = Clock()
    health = Health(channels, patience_seconds=PATIENCE_SECONDS, clock=clock)
    await channels.client(KEY).ping(deadline_seconds=60)
    await health.check(KEY)
    os.kill(server.pid, signal.SIGSTOP)
    for _ in range(2):
        await health.check(KEY)
        clock.now += 10

    os.kill(server.pid, signal.SIGCONT)
    await channels.client(KEY).ping(deadline_seconds=60)

    os.kill(server.pid, signal.SIGSTOP)
    assert await health.check(KEY) is None  # that ping was an answer
    for _ in range(2):
        clock.now += 10
        assert await health.check(KEY) is None
    await channels.close()


async def test_time_alone_condemns_nobody(
    server: subprocess.Popen[bytes], channels: Channels
) -> None:
    """An agent that was itself suspended for an hour has missed one ping, not all."""
    clock = Clock()
    health = Health(channels, patience_seconds=PATIENCE_SECONDS, clock=clock)
    await channels.client(KEY).ping(deadline_seconds=60)
    await health.check(KEY)
    os.kill(server.pid, signal.SIGSTOP)
    assert await health.check(KEY) is None
    clock.now += 3600
    assert await health.check(KEY) is None
    await channels.close()


async def test_server_that_answers_calls_is_not_pinged(
    server: subprocess.Popen[bytes], channels: Channels
) -> None:
    """Real calls are signs of life enough."""
    health = Health(channels, patience_seconds=PATIENCE_SECONDS, clock=Clock())
    client = channels.client(KEY)
    await client.list_repositories(deadline_seconds=60)
    answers = client.answers
    assert await health.check(KEY) is None
    assert client.answers == answers
    assert await health.check(KEY) is None
    assert client.answers == answers + 1
    await channels.close()


async def test_replaced_server_leaves_its_place_and_the_reason(
    tmp_path: Path, store: Store, bells: Bells, caplog: pytest.LogCaptureFixture
) -> None:
    """Its job is cancelled without a delay, a new one is started, and the heartbeat says why."""
    harbour = make_harbour(fleet_config(tmp_path), store, Clock())
    prod = deployment("prod", entry("a"))
    await harbour.reconcile(prod)
    old = await harbour.serve(PLACE)
    harbour.clock.now += 3600
    await rings(bells.workspace)

    with harbour.channels.lend(old.key):
        assert await harbour.life.replace(old, "has not answered for 120 s")
    assert not await harbour.life.replace(old, "has not answered for 140 s")

    assert await rings(bells.workspace)
    assert "prod/a: its code server has not answered for 120 s" in caplog.text
    worker = await store.run(lambda db: workers.get(db, old.key))
    assert worker.terminate_at == harbour.clock.now
    states = await harbour.reconcile(prod)
    (new,) = await harbour.servers()
    assert (new.status, new.key == old.key) == (ServerStatus.STARTING, False)
    (heartbeat,) = server_heartbeats(states, "prod")
    assert "the one before it has not answered for 120 s" in heartbeat["metadata"]["message"]
    assert "the one before it has not answered for 120 s" in heartbeat["error"]["message"]

    await harbour.serve(PLACE)
    (heartbeat,) = server_heartbeats(await harbour.fleet.states(), "prod")
    assert "the one before it" not in heartbeat["metadata"]["message"]


async def test_server_whose_job_is_over_is_replaced_at_once(
    tmp_path: Path, store: Store, bells: Bells
) -> None:
    """Whoever starts servers is woken when it is given up: before, there was nothing to start."""
    harbour = make_harbour(fleet_config(tmp_path), store, Clock())
    prod = deployment("prod", entry("a"))
    await harbour.reconcile(prod)
    old = await harbour.serve(PLACE)
    await harbour.let_run(old.key, started_at=harbour.clock.now)
    harbour.clock.now += 3600
    over = Change(phase=Phase.ENDED, worker={"outcome": JobState.PREEMPTED})
    worker = await harbour.changes.apply(old.key, lambda *_: over, source="squeue")
    await rings(bells.workspace)

    await harbour.life.worker_over(worker)

    assert await rings(bells.workspace)
    await harbour.reconcile(prod)
    (new,) = await harbour.servers()
    assert (new.status, new.key == old.key) == (ServerStatus.STARTING, False)


async def test_server_that_hangs_soon_after_its_start_is_not_restarted_without_end(
    tmp_path: Path, store: Store
) -> None:
    """Each time in a row the next start waits longer."""
    harbour = make_harbour(fleet_config(tmp_path), store, Clock())
    prod = deployment("prod", entry("a"))
    await harbour.reconcile(prod)
    waits = []
    for _ in range(3):
        server = await harbour.serve(PLACE)
        await harbour.life.replace(server, "has not answered for 120 s")
        waited = 0
        while not await harbour.reconcile(prod) or not await harbour.servers():
            harbour.clock.now += 1
            waited += 1
        waits.append(waited)
    assert waits == [1, 5, 30]


async def test_call_of_a_server_that_is_given_up_fails_at_once(
    server: subprocess.Popen[bytes], channels: Channels
) -> None:
    """Its caller is told, and not cancelled together with the connection."""
    client = channels.client(KEY)
    await client.ping(deadline_seconds=60)
    os.kill(server.pid, signal.SIGSTOP)
    calls = [
        asyncio.create_task(client.list_repositories(deadline_seconds=60)),
        asyncio.create_task(client.repository("{}", deadline_seconds=60)),
    ]
    await asyncio.sleep(0)
    await channels.drop(KEY)
    for call in calls:
        with pytest.raises(CodeServerUnavailableError, match="was ended"):
            await call
