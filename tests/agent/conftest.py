"""An agent's context: real store, real job directories, a control plane on a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from blockbuster import blockbuster_ctx

from hpc_agent.agent.bells import Bells
from hpc_agent.agent.context import Context
from hpc_agent.agent.job_reports import JobReports
from hpc_agent.clock import SteadyClock
from hpc_agent.config import parse_config
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.jobs.preparation import JobPreparation
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.relay.app import RelayApp
from hpc_agent.relay.identity import JobReport, ReportAnswer
from hpc_agent.store import inbox, workers
from hpc_agent.store.database import Store
from hpc_agent.store.inbox import Request
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers.changes import Changes, Signature
from tests.agent.scripted import ScriptedScheduler
from tests.relay.fake_control_plane import FakeControlPlane
from tests.workers import a_worker, put


@dataclass(slots=True)
class Clock(SteadyClock):
    """Time as the test says."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def ahead(self) -> timedelta:
        return timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A context with its parts at hand."""

    context: Context
    scheduler: ScriptedScheduler
    control_plane: FakeControlPlane
    clock: Clock = field(default_factory=Clock)

    async def add(self, key: str = "run-1", **changes: Any) -> Worker:
        """Add a job, and the request that asked for it."""
        values: dict[str, Any] = {
            "key": key,
            "kind": WorkerKind.RUN_WORKER,
            "phase": Phase.INTENT,
            "deployment": "prod",
            "location": "here",
            "run_id": f"run of {key}",
            "job_name": "j",
            "request_id": f"request of {key}",
            "created_at": self.clock.now,
        }
        worker = a_worker(**(values | changes))
        request = Request(f"request of {key}", "LAUNCH_RUN", "{}", "prod", False, self.clock.now)

        def write(db: Any) -> Worker:
            inbox.receive(db, [request])
            return put(db, worker)

        return await self.context.store.run(write)

    async def job(self, key: str = "run-1") -> Worker:
        """Return a job as it is now."""
        return await self.context.store.run(lambda db: workers.get(db, key))

    async def reports(self, event: str, job_id: str, **more: Any) -> ReportAnswer:
        """Let a job of run-1 report."""
        tokens = JobTokens(b"secret")
        reports = JobReports(self.context, tokens, spooled=lambda _: False)
        identity = await reports.identify(tokens.token("run-1"))
        assert identity is not None
        report = JobReport(event=event, hostname="c1", slurm_job_id=job_id, **more)  # type: ignore[arg-type]
        return await reports.receive(identity, report)

    async def starts(self, job_id: str) -> None:
        """Let a job of run-1 start, in the eyes of a control plane where its run is STARTING."""
        run = json.dumps({"status": {"__enum__": "DagsterRunStatus.STARTING"}})
        self.control_plane.answer = {"data": {"runs": {"getRunById": run}}}
        assert (await self.reports("started", job_id)).proceed

    async def messages(self, kind: str) -> list[str]:
        """Return the payloads in the outbox of one kind."""
        rows = await self.context.store.run(
            lambda db: db.execute(
                "SELECT payload FROM outbox WHERE kind = ? ORDER BY id", [kind]
            ).fetchall()
        )
        return [str(row[0]) for row in rows]


@asynccontextmanager
async def relay_client(reports: JobReports, **parts: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the real relay application; nothing of it goes to the control plane."""
    app = RelayApp(
        directory=reports,
        upstream=None,  # type: ignore[arg-type]
        delivery=None,  # type: ignore[arg-type]
        on_report=reports.receive,
        secret=b"",
        patience_seconds=1.0,
        **parts,
    ).build()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
        yield client


@pytest.fixture
def control_plane() -> Iterator[FakeControlPlane]:
    fake = FakeControlPlane()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def settings() -> dict[str, Any]:
    """What agent.yaml has besides; tests that want something give it by parametrize."""
    return {}


@pytest.fixture
async def bench(
    tmp_path: Path, control_plane: FakeControlPlane, settings: dict[str, Any]
) -> AsyncIterator[Bench]:
    config = parse_config(
        {
            "control_plane": {"url": control_plane.url},
            "work_dir": str(tmp_path / "work"),
            "home": str(tmp_path / "home"),
            "environment": {"python": "/usr/bin/python3"},
            **settings,
        },
        source="test",
    )
    work = WorkDirectory(config.work_dir)
    work.make()
    bells = Bells()
    store = Store(config.home, on_news=bells.ring_for)
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
            changes=Changes(
                store,
                Signature(scheduler="slurm", agent_id="agent", agent_label=None),
                clock=clock,
                wall=clock,
            ),
            bells=bells,
            clock=clock,
            wall=clock,
        )
        with blockbuster_ctx("hpc_agent"):
            yield Bench(
                context=context, scheduler=scheduler, control_plane=control_plane, clock=clock
            )
    await store.close()
