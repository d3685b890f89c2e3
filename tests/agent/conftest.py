"""An agent's context: real store, real job directories, a control plane on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hpc_agent.agent.context import Bells, Context
from hpc_agent.config import parse_config
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.store import inbox, jobs
from hpc_agent.store.database import Store
from hpc_agent.store.inbox import Request
from hpc_agent.store.jobs import Job, JobKind, Phase
from tests.agent.scripted import ScriptedScheduler
from tests.relay.fake_control_plane import FakeControlPlane


@dataclass(slots=True)
class Clock:
    """Time as the test says."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A context with its parts at hand."""

    context: Context
    scheduler: ScriptedScheduler
    control_plane: FakeControlPlane
    clock: Clock = field(default_factory=Clock)

    async def add(self, key: str = "run-1", **changes: Any) -> Job:
        """Add a job, and the request that asked for it."""
        values: dict[str, Any] = {
            "key": key,
            "kind": JobKind.RUN_WORKER,
            "phase": Phase.INTENT,
            "deployment": "prod",
            "location": "here",
            "run_id": f"run of {key}",
            "job_name": "j",
            "request_id": f"request of {key}",
            "created_at": self.clock.now,
        }
        job = Job(**(values | changes))
        request = Request(f"request of {key}", "LAUNCH_RUN", "{}", "prod", False, self.clock.now)

        def write(db: Any) -> None:
            inbox.receive(db, [request])
            jobs.insert(db, job)

        await self.context.store.run(write)
        return job

    async def job(self, key: str = "run-1") -> Job:
        """Return a job as it is now."""
        return await self.context.store.run(lambda db: jobs.get(db, key))

    async def messages(self, kind: str) -> list[str]:
        """Return the payloads in the outbox of one kind."""
        rows = await self.context.store.run(
            lambda db: db.execute(
                "SELECT payload FROM outbox WHERE kind = ? ORDER BY id", [kind]
            ).fetchall()
        )
        return [str(row[0]) for row in rows]


@pytest.fixture
def control_plane() -> Iterator[FakeControlPlane]:
    fake = FakeControlPlane()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
async def bench(tmp_path: Path, control_plane: FakeControlPlane) -> AsyncIterator[Bench]:
    config = parse_config(
        {
            "control_plane": {"url": control_plane.url},
            "work_dir": str(tmp_path / "work"),
            "home": str(tmp_path / "home"),
            "environment": {"python": "/usr/bin/python3"},
        },
        source="test",
    )
    work = WorkDirectory(config.work_dir)
    work.make()
    store = Store(config.home)
    await store.open()
    clock = Clock()
    scheduler = ScriptedScheduler()
    preparation = JobPreparation(
        work=work,
        templates=Templates(),
        tokens=JobTokens(b"secret"),
        program=build_node_program(work.lib),
        node_python="python3",
    )
    async with AgentApi(config.control_plane, token=lambda: "token", agent_id="agent") as api:
        context = Context(
            config=config,
            agent_id="agent",
            store=store,
            api=api,
            scheduler=scheduler,
            preparation=preparation,
            bells=Bells(),
            clock=clock,
        )
        with blockbuster_ctx("hpc_agent"):
            yield Bench(
                context=context, scheduler=scheduler, control_plane=control_plane, clock=clock
            )
    await store.close()
