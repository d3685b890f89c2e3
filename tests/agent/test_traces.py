"""The agent's spans, as a collector gets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from hpc_agent.agent.conclude import ConcludeLoop
from hpc_agent.slurm.state import JobState
from hpc_agent.store import workers
from hpc_agent.store.phases import Phase
from hpc_agent.traces.otlp import OtlpTracer
from tests.agent.conftest import Bench
from tests.agent.test_serve import RUN, Server, harbour_of
from tests.traces.collector import Collector, collecting


@asynccontextmanager
async def traced(bench: Bench) -> AsyncIterator[tuple[Bench, Collector]]:
    """Yield the bench with a tracer; what it tells has arrived when the block is over."""
    with collecting() as collector:
        tracer = await asyncio.to_thread(
            OtlpTracer, collector.url, service="hpc-agent", instance="agent"
        )
        yield replace(bench, context=replace(bench.context, tracer=tracer)), collector
        await asyncio.to_thread(tracer.close)


async def goes(bench: Bench, phase: Phase, *, after: float = 10, **changes: Any) -> None:
    """Let the worker enter a phase some seconds later."""
    bench.clock.now += after
    change = partial(workers.change, key="run-1", now=bench.clock.now, source="test", phase=phase)
    await bench.context.store.run(lambda db: change(db, **changes))


async def conclude(bench: Bench) -> None:
    """Say the last word on what is over."""
    loop = ConcludeLoop(
        bench.context,
        None,  # type: ignore[arg-type]  # no code server is concluded here
        spooled=lambda _: False,
        revoke=lambda _: None,
    )
    bench.control_plane.answer = {"data": {"runs": {"getRunById": None}}}
    await loop.step()


async def test_worker_has_a_span_for_each_phase(bench: Bench) -> None:
    """Side by side from the intent to the last word, a job that was requeued included."""
    async with traced(bench) as (told, collector):
        await told.add(job_id="7", state=JobState.PENDING)
        for phase in (Phase.SUBMITTING, Phase.QUEUED, Phase.RUNNING, Phase.QUEUED, Phase.RUNNING):
            await goes(told, phase)
        await goes(told, Phase.ENDED, ended_at=1055.0, outcome=JobState.TIMEOUT)
        await conclude(told)

    (life,) = collector.named("run_worker")
    phases = sorted((each for each in collector.spans if each.parent == life.id), key=_began)
    assert [(each.name, each.began_at - 1000, each.ended_at - 1000) for each in phases] == [
        ("held back", 0, 10),
        ("sbatch", 10, 20),
        ("queue", 20, 30),
        ("job", 30, 40),
        ("queue", 40, 50),
        ("job", 50, 55),
        ("last word", 55, 60),
    ]
    assert {each.trace for each in phases} == {life.trace}
    assert len({each.id for each in phases}) == len(phases)
    assert life.error == "TIMEOUT"
    assert life.attributes["slurm.job_id"] == "7"
    assert life.attributes["dagster.run_id"] == "run of run-1"


async def test_start_and_end_are_when_they_were_and_not_when_they_were_noticed(
    bench: Bench,
) -> None:
    """The node program tells them more exactly than a look at the queue does."""
    async with traced(bench) as (told, collector):
        await told.add(job_id="7", state=JobState.PENDING)
        await goes(told, Phase.QUEUED)
        await goes(told, Phase.RUNNING, after=20, started_at=1012.5)
        await goes(told, Phase.ENDED, after=30, ended_at=1050.5, outcome=JobState.COMPLETED)
        await conclude(told)

    (queue,), (job,) = collector.named("queue"), collector.named("job")
    assert (queue.ended_at, job.began_at, job.ended_at) == (1012.5, 1012.5, 1050.5)
    assert collector.named("run_worker")[0].error == ""


async def test_request_and_its_preparation_are_in_the_trace_of_the_run(bench: Bench) -> None:
    """Below the gateway's span of the request, whose id nobody has told the agent."""
    async with traced(bench) as (told, collector):
        harbour = harbour_of(told)
        server = Server(told, harbour)
        await server.ask("LAUNCH_RUN", {"pipeline_run": RUN})
        await harbour.channels.close()

    (serve,), (prepare,) = collector.named("serve LAUNCH_RUN"), collector.named("prepare job")
    assert (prepare.trace, prepare.parent) == (serve.trace, serve.id)
    assert serve.attributes["dagster.run_id"] == "r1"


def _began(span: object) -> float:
    return float(span.began_at)  # type: ignore[attr-defined]
