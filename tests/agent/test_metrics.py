"""What the agent counts of its work."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hpc_agent.agent.loop import Bell, repeat
from hpc_agent.errors import LeaseHeldError, StoreError
from hpc_agent.metrics.agent import AGENT
from hpc_agent.metrics.prometheus import PrometheusMeter
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.workers.changes import Changes, Signature
from tests.agent.conftest import Bench
from tests.metrics.scrape import Scraped


async def read(meter: PrometheusMeter) -> Scraped:
    return Scraped((await asyncio.to_thread(meter.text, [])).decode())


def measured(bench: Bench) -> tuple[Bench, PrometheusMeter]:
    """Return the bench with a meter that remembers."""
    meter = PrometheusMeter(AGENT)
    changes = Changes(
        bench.context.store,
        Signature(scheduler="slurm", agent_id="agent", agent_label=None),
        clock=bench.clock,
        wall=bench.clock,
        meter=meter,
    )
    return replace(bench, context=replace(bench.context, changes=changes, meter=meter)), meter


async def test_waits_and_ends_of_jobs_are_counted(bench: Bench) -> None:
    """The wait from the intent to the start, the run from there to the end, and how it ended."""
    bench, meter = measured(bench)
    await bench.add(phase=Phase.QUEUED, job_id="7", state=JobState.PENDING)
    bench.clock.now += 100
    await bench.starts("7")
    bench.clock.now += 50
    record = {"outcome": "exited", "exit_code": 0, "ended_at": bench.clock.now}
    await bench.reports("exited", "7", exit=record)

    found = await read(meter)

    labels = {"kind": "run_worker", "location": "here"}
    assert found.value("hpc_agent_job_queue_seconds_sum", **labels) == 100
    assert found.value("hpc_agent_job_run_seconds_sum", **labels) == 50
    assert found.value("hpc_agent_jobs_ended_total", outcome="COMPLETED", **labels) == 1


async def test_loop_that_fails_is_seen() -> None:
    """Its failures are counted, and its last success grows old."""
    meter, outcomes = PrometheusMeter(AGENT), iter([StoreError("x"), ValueError(), None])

    async def step() -> float:
        for outcome in outcomes:
            if outcome is None:
                return 0.0
            raise outcome
        raise LeaseHeldError("the end")

    try:
        await repeat("test", step, Bell(), meter=meter)
    except LeaseHeldError:
        found = await read(meter)

    assert found.value("hpc_agent_loop_failures_total", loop="test") == 2
    assert found.value("hpc_agent_loop_last_success_timestamp_seconds", loop="test") > 0
