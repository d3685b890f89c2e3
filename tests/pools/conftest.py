"""A pool with its desk: the real relay application, store and loop, a scripted scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from hpc_agent.agent.job_reports import JobReports
from hpc_agent.agent.loop import repeat
from hpc_agent.agent.pools import PoolsLoop, SupervisorsLoop
from hpc_agent.agent.submit import SubmitLoop
from hpc_agent.config import AgentConfig
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.pools.desk import Desk
from hpc_agent.relay.identity import TOKEN_HEADER
from hpc_agent.store import pools, workers
from hpc_agent.store.workers import Placement, Worker
from tests.agent.conftest import Bench, bench, control_plane, relay_client

__all__ = ["bench", "control_plane"]

TOKENS = JobTokens(b"secret")
POOL = "short"


def run(number: int) -> str:
    """Return the key of a run worker."""
    return f"run-{number:020x}"


@dataclass(frozen=True, slots=True)
class Pooling:
    """A pool, and what its supervisors and the agent's loops do."""

    bench: Bench
    desk: Desk
    loop: PoolsLoop
    client: httpx.AsyncClient
    stack: AsyncExitStack

    async def restarted(self, config: AgentConfig) -> Pooling:
        """Return the same after the agent was started again with another agent.yaml."""
        context = replace(self.bench.context, config=config)
        return await opened(replace(self.bench, context=context), self.stack)

    async def ask(self, key: str, **said: Any) -> httpx.Response:
        """Let the supervisor of an allocation's first node ask for work."""
        content = {"node": 0, "hostname": "c1", "slots": 2} | said
        return await self.client.post(
            "/_hpc/pool/work", json=content, headers={TOKEN_HEADER: TOKENS.token(key)}
        )

    async def work(self, key: str, **said: Any) -> dict[str, Any]:
        """Do so, and return the orders."""
        answer = await self.ask(key, **said)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def wants(self, number: int, **changes: Any) -> Worker:
        """Let a run wait for a slot."""
        return await self.bench.add(run(number), placement=Placement.POOL, pool=POOL, **changes)

    async def allocations(self) -> list[Worker]:
        """Return the allocations that are not over."""
        return await self.bench.context.store.run(lambda db: pools.allocations(db, POOL))

    async def allocation(self, job_id: str = "100") -> str:
        """Let the agent start an allocation, and Slurm run it; return its key."""
        await self.loop.step()
        self.bench.scheduler.submissions.append(job_id)
        submit = SubmitLoop(self.bench.context)
        await submit.step()
        await self.bench.context.tasks.finish()
        (newest, *_) = reversed(await self.allocations())
        assert newest.job_id == job_id
        return newest.key

    @asynccontextmanager
    async def looping(self) -> AsyncIterator[None]:
        """Let the agent's loop that wakes supervisors go on in the background."""
        bell = self.bench.context.bells.supervisors
        task = asyncio.create_task(repeat("supervisors", SupervisorsLoop(self.desk).step, bell))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def change(self, key: str, **changes: Any) -> Worker:
        """Let a worker be as the test says."""
        return await self.bench.context.store.run(
            lambda db: workers.change(db, key, now=self.bench.clock(), source="test", **changes)
        )

    async def decisions(self) -> list[str]:
        """Return what was decided."""
        found = await self.bench.context.store.run(lambda db: pools.decisions(db, POOL))
        return [each.words for each in found]


def pool_settings(**pool: Any) -> dict[str, Any]:
    """Return what agent.yaml has of a pool and the location that uses it."""
    options = {"cpus-per-task": 4, "time": "1:00:00"}
    return {
        "pools": {POOL: {"options": options, "max": 2, **pool}},
        "locations": {"here": {"pool": POOL}},
    }


@pytest.fixture
def settings() -> dict[str, Any]:
    return pool_settings()


@pytest.fixture
async def pooling(bench: Bench) -> AsyncIterator[Pooling]:
    async with AsyncExitStack() as stack:
        yield await opened(bench, stack)
        await bench.context.tasks.finish()


async def opened(bench: Bench, stack: AsyncExitStack) -> Pooling:
    """Return the pools of an agent on its store."""
    context = bench.context
    desk = Desk(
        config=context.config, store=context.store, changes=context.changes, clock=bench.clock
    )
    reports = JobReports(context, TOKENS, spooled=lambda _: False)
    client = await stack.enter_async_context(relay_client(reports, pools=desk))
    return Pooling(bench, desk, PoolsLoop(context, desk), client, stack)
