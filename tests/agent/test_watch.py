"""Evidence, absence, and what a failed query must not do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpc_agent.agent.watch import WatchLoop
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store.jobs import Phase
from tests.agent.conftest import Bench

SUBMITTED: dict[str, Any] = {"phase": Phase.QUEUED, "job_id": "7", "submitted_at": 1000.0}


def record(state: JobState, source: str = "squeue", **changes: object) -> JobRecord:
    return JobRecord(job_id="7", state=state, source=source, **changes)  # type: ignore[arg-type]


async def test_failed_query_changes_no_job(bench: Bench) -> None:
    """An error says nothing about any job."""
    before = await bench.add(**SUBMITTED)
    bench.scheduler.broken = SchedulerUnavailableError("slurmctld is away")
    with pytest.raises(SchedulerUnavailableError):
        await WatchLoop(bench.context).step()
    assert await bench.job() == before


async def test_one_query_for_all_jobs(bench: Bench) -> None:
    """States of many jobs come from one look at the queue."""
    for number in range(50):
        await bench.add(f"run-{number}", **(SUBMITTED | {"job_id": str(number)}))
    bench.scheduler.queued = [
        JobRecord(job_id=str(number), state=JobState.RUNNING, source="squeue", nodes="c1")
        for number in range(50)
    ]
    await WatchLoop(bench.context).step()
    assert {(await bench.job(f"run-{number}")).phase for number in range(50)} == {Phase.RUNNING}


async def test_absent_job_ends_by_its_accounting_record(bench: Bench) -> None:
    """sacct is positive evidence."""
    await bench.add(**SUBMITTED)
    bench.scheduler.accounted = [record(JobState.TIMEOUT, "sacct")]
    await WatchLoop(bench.context).step()
    job = await bench.job()
    assert (job.phase, job.state) == (Phase.ENDED, JobState.TIMEOUT)


async def test_absent_job_ends_by_its_exit_record(bench: Bench) -> None:
    """So is what the node program wrote last."""
    await bench.add(**SUBMITTED)
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    (directory / "exit.json").write_text(
        json.dumps({"exit_code": 3, "outcome": "exited", "ended_at": 5.0, "stderr_tail": "boom"})
    )
    await WatchLoop(bench.context).step()
    job = await bench.job()
    assert (job.phase, job.exit_code, job.message) == (Phase.ENDED, 3, "boom")


async def test_absence_is_a_loss_only_after_long_under_a_healthy_controller(bench: Bench) -> None:
    """The clock stands still while nobody can know."""
    await bench.add(**SUBMITTED)
    watch = WatchLoop(bench.context)
    await watch.step()
    assert (await bench.job()).absent_since == bench.clock.now
    bench.scheduler.up = False
    bench.clock.now += 10_000
    await watch.step()
    assert (await bench.job()).phase is Phase.QUEUED
    bench.scheduler.up = True
    await watch.step()
    assert (await bench.job()).phase is Phase.LOST


async def test_slurm_knows_better_why_a_job_was_ended(bench: Bench) -> None:
    """Out of memory is no plain failure, whatever the job's own record says."""
    await bench.add(**SUBMITTED)
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    (directory / "exit.json").write_text(json.dumps({"exit_code": None, "signal": 9}))
    bench.scheduler.queued = [record(JobState.OUT_OF_MEMORY)]
    await WatchLoop(bench.context).step()
    assert (await bench.job()).state is JobState.OUT_OF_MEMORY


async def test_state_from_the_future_changes_nothing(bench: Bench) -> None:
    """An unknown state is not an end."""
    await bench.add(**SUBMITTED)
    bench.scheduler.queued = [record(JobState.UNKNOWN, raw_state="TELEPORTING")]
    await WatchLoop(bench.context).step()
    assert (await bench.job()).phase is Phase.QUEUED


async def test_new_pending_reason_is_told_once(bench: Bench) -> None:
    """Changes only."""
    await bench.add(**SUBMITTED)
    watch = WatchLoop(bench.context)
    for reason in ("Priority", "Priority", "Resources"):
        bench.scheduler.queued = [record(JobState.PENDING, reason=reason)]
        await watch.step()
    told = [
        json.loads(payload)["dagsterEvent"]["message"] for payload in await bench.messages("event")
    ]
    assert [line.split("(")[1].split(":")[0] for line in told] == ["Priority", "Resources"]
