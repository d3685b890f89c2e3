"""Which code servers are given up: those that should answer and do not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc_agent.agent.health import HealthLoop
from hpc_agent.agent.tasks import Tasks
from hpc_agent.code_servers.health import Health
from hpc_agent.slurm.state import JobState
from hpc_agent.store import code_servers
from hpc_agent.store.code_servers import CodeServer, ServerStatus
from tests.agent.conftest import Bench
from tests.code_servers.conftest import Harbour, deployment, entry, make_harbour

PLACE = ("prod", "a")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A serving code server that accepts connections and says nothing, and who watches it."""

    harbour: Harbour
    server: CodeServer
    loop: HealthLoop
    tasks: Tasks

    async def set_state(self, state: JobState) -> None:
        """Let Slurm say so of its job."""
        await self.harbour.let_run(self.server.key, started_at=1.0, state=state)

    async def check(self, times: int) -> ServerStatus:
        """Let the loop look so often, and return how the server stands then."""
        for _ in range(times):
            await self.loop.step()
            await self.tasks.finish()
            self.harbour.clock.now += 10
        found = await self.harbour.store.run(lambda db: code_servers.find(db, self.server.key))
        assert found is not None
        return found.status


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[Path]:
    """A socket that takes connections."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "mute"))
        listening.listen()
        yield tmp_path / "mute"


@pytest.fixture
async def watched(bench: Bench, mute: Path) -> AsyncIterator[Watched]:
    context = bench.context
    harbour = make_harbour(context.config, context.store, bench.clock, context.preparation)
    await harbour.reconcile(deployment("prod", entry("a")))
    server = await harbour.serve(PLACE)
    harbour.tunnels.socket = mute
    health = Health(harbour.channels, patience_seconds=0.3, clock=bench.clock)
    loop = HealthLoop(context, harbour.life, health)
    yield Watched(harbour=harbour, server=server, loop=loop, tasks=context.tasks)
    await harbour.channels.close()


async def test_silent_server_is_given_up(watched: Watched) -> None:
    """After three pings; the one before the last changes nothing."""
    await watched.set_state(JobState.RUNNING)
    assert await watched.check(2) is ServerStatus.SERVING
    assert await watched.check(1) is ServerStatus.RETIRED


async def test_server_of_a_suspended_job_is_left_alone(watched: Watched) -> None:
    """Slurm stops its processes on purpose; what it missed before does not count afterwards."""
    await watched.set_state(JobState.RUNNING)
    await watched.check(2)
    await watched.set_state(JobState.SUSPENDED)
    assert await watched.check(4) is ServerStatus.SERVING
    await watched.set_state(JobState.RUNNING)
    assert await watched.check(2) is ServerStatus.SERVING


async def test_silent_server_is_given_up_while_its_successor_waits(watched: Watched) -> None:
    """A new version that is still in the queue is no reason to keep what does not answer."""
    await watched.set_state(JobState.RUNNING)
    await watched.harbour.reconcile(deployment("prod", entry("a", version=2.0)))
    assert await watched.check(3) is ServerStatus.RETIRED
    (successor,) = await watched.harbour.servers()
    assert successor.status is ServerStatus.STARTING
