"""A run that asks for jobs: the real relay application and store, a scheduler that is scripted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from hpc_agent.agent.conclude import ConcludeLoop
from hpc_agent.agent.followers import FollowersLoop
from hpc_agent.agent.job_reports import JobReports
from hpc_agent.agent.loop import repeat
from hpc_agent.agent.submit import SubmitLoop
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.relay.identity import TOKEN_HEADER
from hpc_agent.relay.run_events import RunEvents
from hpc_agent.runs.worker_plan import run_key
from hpc_agent.steps.desk import Desk
from hpc_agent.store import launches, steps, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from tests.agent.conftest import Bench, bench, control_plane, relay_client, settings

__all__ = ["bench", "control_plane", "settings"]

RUN_ID = "0b36e4e1-7a2c-4b0d-9c3f-0e6f8e1d2c3b"
RUNNER = run_key(RUN_ID)
TOKENS = JobTokens(b"secret")


@dataclass(frozen=True, slots=True)
class Asking:
    """A run worker that runs, and what it can do with its token."""

    bench: Bench
    desk: Desk
    client: httpx.AsyncClient
    reports: JobReports
    conclude: ConcludeLoop
    spooled: set[str]

    async def post(self, path: str, content: Any, *, key: str = RUNNER) -> httpx.Response:
        return await self.client.post(
            f"/_hpc/steps{path}", json=content, headers={TOKEN_HEADER: TOKENS.token(key)}
        )

    async def submit(self, *jobs: dict[str, Any], key: str = RUNNER) -> list[dict[str, Any]]:
        """Ask for jobs; return their statuses."""
        answer = await self.post("", {"jobs": list(jobs)}, key=key)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["jobs"])

    async def changes(self, *, key: str = RUNNER, **asked: float) -> dict[str, Any]:
        """Ask what has changed."""
        answer = await self.client.get(
            "/_hpc/steps", params=asked, headers={TOKEN_HEADER: TOKENS.token(key)}
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def step(self, name: str, attempt: int = 0) -> Worker:
        """Return the newest worker of a step."""
        found = await self.bench.context.store.run(lambda db: steps.find(db, RUN_ID, name, attempt))
        assert found is not None
        return found

    async def change(self, name: str, **changes: Any) -> None:
        """Let a step's worker be as the test says."""
        key = (await self.step(name)).key
        await self.bench.context.store.run(
            lambda db: workers.change(db, key, now=self.bench.clock(), source="test", **changes)
        )

    async def submitted(self, *job_ids: str) -> None:
        """Let the agent submit what is due."""
        self.bench.scheduler.submissions += job_ids
        loop = SubmitLoop(self.bench.context)
        await loop.step()
        self.bench.clock.now += 1.0  # several that are alike gather first
        await loop.step()
        await self.bench.context.tasks.finish()

    def run_is(self, status: str) -> None:
        """Let the control plane say how the run stands."""
        run = json.dumps({"status": {"__enum__": f"DagsterRunStatus.{status}"}})
        self.bench.control_plane.answer = {"data": {"runs": {"getRunById": run}}}


@pytest.fixture
async def asking(bench: Bench) -> AsyncIterator[Asking]:
    context = bench.context
    run = RunToLaunch(
        run_id=RUN_ID,
        job_name="nightly",
        location="here",
        tags={"dagster-hpc/account": "physics", "dagster-hpc/mem": "1G"},
        code_origin={"repository_origin": {}},
    )
    await context.store.run(lambda db: launches.keep(db, run, "prod"))
    await bench.add(RUNNER, phase=Phase.RUNNING, job_id="7", started_at=990.0, run_id=RUN_ID)
    await bench.add(
        "srv-1", kind=WorkerKind.CODE_SERVER, phase=Phase.RUNNING, job_id="8", run_id=None
    )
    await context.store.run(lambda db: db.execute("DELETE FROM inbox"))
    reports = JobReports(context, TOKENS, spooled=lambda _: False)
    spooled: set[str] = set()
    run_events = RunEvents()
    desk = Desk(
        config=context.config,
        store=context.store,
        preparation=context.preparation,
        partitions=None,
        ending=context.step_ending,
        run_events=run_events,
        spooled=lambda run_id: run_id in spooled,
        clock=bench.clock,
    )
    conclude = ConcludeLoop(
        context,
        None,  # type: ignore[arg-type]  # no code server is concluded here
        spooled=lambda _: False,
        revoke=reports.forget,
    )
    followers = FollowersLoop(context, run_events)
    watching = asyncio.create_task(repeat("followers", followers.step, context.bells.followers))
    async with relay_client(reports, steps=desk, run_events=run_events) as client:
        yield Asking(bench, desk, client, reports, conclude, spooled)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await context.tasks.finish()
