"""When the position in the queue is asked for, what a run's log is told of it, and who sees it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hpc_agent.agent.positions import PositionsLoop
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.jobs.wording import describe
from hpc_agent.slurm.queue_position import Position
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.selection import EVERYTHING
from hpc_agent.store.workers import WorkerKind
from hpc_agent.workers import node_evidence
from tests.agent.conftest import Bench

WAITS: dict[str, Any] = {
    "phase": Phase.QUEUED,
    "state": JobState.PENDING,
    "reason": "Priority",
    "job_id": "7",
    "submitted_at": 900.0,
}


async def told(bench: Bench) -> list[str]:
    """Return the lines in the runs' logs."""
    payloads = await bench.messages("event")
    return [json.loads(payload)["dagsterEvent"]["message"] for payload in payloads]


async def test_one_question_is_for_all_and_none_where_nothing_waits(bench: Bench) -> None:
    """A job that is in the queue for some seconds is not worth one."""
    loop = PositionsLoop(bench.context)
    await bench.add("running", **(WAITS | {"phase": Phase.RUNNING}))
    await bench.add("new", **(WAITS | {"job_id": "8", "submitted_at": 990.0}))
    await loop.step()
    assert bench.scheduler.position_queries == 0
    for number in range(20):
        await bench.add(f"run-{number}", **(WAITS | {"job_id": f"9_{number}"}))
    assert await loop.step() == 300
    assert bench.scheduler.position_queries == 1


async def test_position_is_told_with_the_reason_and_then_when_it_halves(bench: Bench) -> None:
    """Not at each step forward, and not when others overtake."""
    await bench.add(**WAITS)
    loop = PositionsLoop(bench.context)
    for position in (12, 11, 9, 7, 9, 6, 3):
        bench.scheduler.positioned["7"] = Position(position, 20, "gpu")
        await loop.step()
    assert await told(bench) == [
        "Job 7 is PENDING (Priority: jobs of higher priority come first), "
        f"position {position} of 20 in partition gpu."
        for position in (12, 7, 3)
    ]


async def test_restarted_agent_tells_nothing_again(bench: Bench) -> None:
    """It goes on from the position that was kept."""
    await bench.add(**WAITS)
    bench.scheduler.positioned["7"] = Position(5, 20, "gpu")
    await PositionsLoop(bench.context).step()
    bench.scheduler.positioned["7"] = Position(4, 20, "gpu")
    await PositionsLoop(bench.context).step()
    assert len(await told(bench)) == 1
    assert "position 4 of 20" in describe(await bench.job())


async def test_position_is_in_the_list_of_jobs_and_goes_with_the_start(bench: Bench) -> None:
    """A number for programs, words for people."""
    await bench.add(**WAITS)
    bench.scheduler.positioned["7"] = Position(2, 3, "gpu")
    await PositionsLoop(bench.context).step()
    (row,) = await asyncio.to_thread(read_jobs, bench.context.config, EVERYTHING)
    assert row["position"] == {"position": 2, "of": 3, "partition": "gpu"}
    assert row["description"].endswith("position 2 of 3 in partition gpu")
    await bench.context.changes.apply(
        "run-1",
        lambda worker, _: node_evidence.observe_start(worker, "c1", "7", 1000.0),
        source="job",
    )
    job = (await bench.job()).job
    assert job is not None
    assert job.position is None


async def test_position_is_dropped_when_there_is_none(bench: Bench) -> None:
    """An old one would be a lie: the job was held meanwhile."""
    await bench.add(**WAITS)
    bench.scheduler.positioned["7"] = Position(2, 3, "gpu")
    loop = PositionsLoop(bench.context)
    await loop.step()
    bench.scheduler.positioned.clear()
    await loop.step()
    assert "position" not in describe(await bench.job())


async def test_silent_controller_changes_no_place(bench: Bench) -> None:
    """The next look may know more."""
    await bench.add(**WAITS)
    bench.scheduler.positioned["7"] = Position(2, 3, "gpu")
    loop = PositionsLoop(bench.context)
    await loop.step()
    bench.scheduler.broken = SchedulerUnavailableError("away")
    assert await loop.step() == 300
    assert "position 2 of 3" in describe(await bench.job())


async def test_code_server_says_its_place_and_no_log_is_told(bench: Bench) -> None:
    """Its words are the state of its location in the UI: every heartbeat has them."""
    await bench.add(**(WAITS | {"kind": WorkerKind.CODE_SERVER, "run_id": None}))
    bench.scheduler.positioned["7"] = Position(2, 3, "gpu")
    await PositionsLoop(bench.context).step()
    assert "position 2 of 3 in partition gpu" in describe(await bench.job())
    assert await told(bench) == []
