"""When the use of resources is asked for, and when it is told without an answer."""

from __future__ import annotations

import json
from typing import Any

from hpc_agent.agent.measure import MeasureLoop
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench

ENDED: dict[str, Any] = {
    "phase": Phase.ENDED,
    "state": JobState.COMPLETED,
    "job_id": "7",
    "submitted_at": 900.0,
    "started_at": 910.0,
    "ended_at": 1000.0,
    "concluded_at": 1000.0,
}
USED = Usage(allocated_cpus=2, cpu_seconds=90.0, nodes=1)


async def told(bench: Bench) -> list[str]:
    """Return the lines in the runs' logs."""
    payloads = await bench.messages("event")
    return [json.loads(payload)["dagsterEvent"]["message"] for payload in payloads]


async def test_accounting_is_given_time_and_asked_once_for_many(bench: Bench) -> None:
    """slurmdbd learns of an end late."""
    for number in range(20):
        await bench.add(f"run-{number}", **(ENDED | {"job_id": str(number)}))
        bench.scheduler.used[str(number)] = USED
    measure = MeasureLoop(bench.context)
    await measure.step()
    assert await told(bench) == []
    bench.clock.now += 10
    await measure.step()
    assert len(await told(bench)) == 20
    assert (await told(bench))[0] == "Job 0 used CPU 50%."
    assert bench.scheduler.usage_queries == 1


async def test_use_of_a_job_is_told_once(bench: Bench) -> None:
    """Also after a restart of the agent."""
    await bench.add(**ENDED)
    bench.scheduler.used["7"] = USED
    bench.clock.now += 10
    await MeasureLoop(bench.context).step()
    await MeasureLoop(bench.context).step()
    assert len(await told(bench)) == 1


async def test_without_accounting_the_exit_record_is_told_after_a_few_tries(bench: Bench) -> None:
    """What the node program measured is better than nothing."""
    await bench.add(**ENDED)
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    (directory / "exit.json").write_text(
        json.dumps({"exit_code": 0, "cpu_seconds": 45.0, "allocation": {"cpus": 1, "nodes": 1}})
    )
    measure = MeasureLoop(bench.context)
    for seconds in (10, 40):
        bench.clock.now = 1000.0 + seconds
        await measure.step()
    assert await told(bench) == []
    bench.clock.now = 1100.0
    await measure.step()
    assert await told(bench) == ["Job 7 used CPU 50%."]
    assert bench.scheduler.usage_queries == 3


async def test_accounting_that_is_away_keeps_the_figures_of_no_job_back(bench: Bench) -> None:
    """slurmdbd may be down for days; the exit record is told in time."""
    await bench.add(**ENDED)
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    (directory / "exit.json").write_text(
        json.dumps({"exit_code": 0, "cpu_seconds": 45.0, "allocation": {"cpus": 1, "nodes": 1}})
    )
    bench.scheduler.broken = SchedulerUnavailableError("sacct: Connection refused")
    bench.clock.now = 1100.0
    await MeasureLoop(bench.context).step()
    assert await told(bench) == ["Job 7 used CPU 50%."]


async def test_jobs_of_long_ago_are_left_alone(bench: Bench) -> None:
    """An agent that was away for a day does not write into yesterday's runs."""
    await bench.add(**ENDED)
    bench.clock.now += 24 * 3600
    await MeasureLoop(bench.context).step()
    assert await told(bench) == []
