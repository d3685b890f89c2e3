"""Bursts of alike jobs become job arrays, and no run is submitted twice for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hpc_agent.agent.cancel import CancelLoop
from hpc_agent.agent.search import SEARCH_WINDOW_SECONDS
from hpc_agent.agent.watch import WatchLoop
from hpc_agent.errors import (
    SchedulerError,
    SchedulerLimitError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store import selection, submissions, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker
from hpc_agent.workers import node_evidence
from tests.agent.conftest import Bench
from tests.agent.test_submit import Submitter, answers, conclude, told

SCRIPT = "#!/bin/sh\n#SBATCH --output=o\n#SBATCH --chdir=d\ntrue\n"
LIMIT = SchedulerLimitError("QOSMaxSubmitJobPerUserLimit")


@pytest.fixture
async def submitter(bench: Bench) -> AsyncIterator[Submitter]:
    made = Submitter(bench)
    yield made
    await made.tasks.dismiss()


async def burst(bench: Bench, count: int, **changes: Any) -> list[Worker]:
    """Add intents that are alike and have waited for a second."""
    values = {"likeness": "x", "created_at": bench.clock.now - 1.0} | changes
    added = []
    for number in range(count):
        added.append(await bench.add(f"run-{number}", **values))
        directory = bench.context.preparation.work.of(f"run-{number}")
        directory.mkdir()
        (directory / "job.sh").write_text(SCRIPT)
    return added


async def all_jobs(bench: Bench) -> list[Worker]:
    """Return the jobs, oldest first."""
    every = await bench.context.store.run(lambda db: selection.find(db, selection.EVERYTHING))
    return sorted(every, key=lambda job: int(job.key.removeprefix("run-")))


async def test_burst_is_one_array_of_jobs(bench: Bench, submitter: Submitter) -> None:
    """Each job is a task, with its own answer and line in its run's log."""
    await burst(bench, 3)
    bench.scheduler.submissions = ["17"]
    await submitter.step()
    assert bench.scheduler.arrays == [3]
    jobs = await all_jobs(bench)
    assert [(job.phase, job.job_id) for job in jobs] == [
        (Phase.QUEUED, "17_0"),
        (Phase.QUEUED, "17_1"),
        (Phase.QUEUED, "17_2"),
    ]
    assert await answers(bench) == ["DagsterCloudApiSuccess"] * 3
    assert await told(bench) == [
        f"Run worker submitted as Slurm job 17_{index}." for index in range(3)
    ]
    directory = bench.context.preparation.work.of(bench.scheduler.comments[0])
    assert [(directory / str(index)).resolve().name for index in range(3)] == [
        job.key for job in jobs
    ]


async def test_job_that_is_alone_is_no_array(bench: Bench, submitter: Submitter) -> None:
    """It goes at once, under its own key, and nothing is asked of the scheduler before."""
    await burst(bench, 1, created_at=bench.clock.now)
    bench.scheduler.broken = SchedulerUnavailableError("not to be asked")
    bench.scheduler.submissions = ["17"]
    await submitter.step()
    assert (bench.scheduler.arrays, bench.scheduler.comments) == ([], ["run-0"])
    assert (await bench.job("run-0")).job_id == "17"


async def test_array_is_no_larger_than_the_scheduler_takes(
    bench: Bench, submitter: Submitter
) -> None:
    """A burst beyond MaxArraySize is several arrays."""
    await burst(bench, 7)
    bench.scheduler.largest_array = 3
    bench.scheduler.submissions = ["17", "18", "19"]
    for _ in range(3):
        await submitter.step()
    assert bench.scheduler.arrays == [3, 3]
    assert [job.job_id for job in await all_jobs(bench)] == [
        *("17_0", "17_1", "17_2"),
        *("18_0", "18_1", "18_2"),
        "19",
    ]


@pytest.mark.parametrize("largest", [0, 1])
async def test_scheduler_without_arrays_gets_single_jobs(
    bench: Bench, submitter: Submitter, largest: int
) -> None:
    """As before."""
    await burst(bench, 2)
    bench.scheduler.largest_array = largest
    bench.scheduler.submissions = ["17", "18"]
    await submitter.step()
    await submitter.step()
    assert bench.scheduler.arrays == []
    assert [job.job_id for job in await all_jobs(bench)] == ["17", "18"]


async def test_array_beyond_a_submit_limit_is_halved(bench: Bench, submitter: Submitter) -> None:
    """What fits goes; the rest is held back and says why."""
    await burst(bench, 6)
    bench.scheduler.submissions = [LIMIT, "17", LIMIT]
    for _ in range(3):
        await submitter.step()
    assert bench.scheduler.arrays == [6, 3, 3]
    bench.scheduler.submissions = [LIMIT]
    await submitter.step()
    jobs = await all_jobs(bench)
    assert [job.job_id for job in jobs] == ["17_0", "17_1", "17_2", None, None, None]
    assert {(job.phase, job.reason) for job in jobs[3:]} == {(Phase.INTENT, str(LIMIT))}
    assert all(job.not_before > bench.clock.now for job in jobs[3:])
    waits = f"Run worker waits to be submitted: {LIMIT}"
    assert (await told(bench)).count(waits) == 3


async def test_held_back_burst_costs_one_probe_at_a_time(
    bench: Bench, submitter: Submitter
) -> None:
    """Not one sbatch for each of its jobs."""
    await burst(bench, 5)
    bench.scheduler.submissions = [LIMIT, LIMIT, LIMIT]
    for _ in range(3):
        await submitter.step()
    bench.clock.now += 20
    bench.scheduler.submissions = [LIMIT]
    await submitter.step()
    await submitter.step()
    assert len(bench.scheduler.submitted) == 4
    bench.clock.now += 20
    bench.scheduler.submissions = ["17", "18", "19"]
    for _ in range(3):
        await submitter.step()
    assert bench.scheduler.arrays == [5, 2, 2, 2]
    assert [job.job_id for job in await all_jobs(bench)] == ["17", "18_0", "18_1", "19_0", "19_1"]


async def test_absent_controller_holds_the_whole_burst_back(
    bench: Bench, submitter: Submitter
) -> None:
    """One attempt tells it for all."""
    await burst(bench, 4)
    bench.scheduler.submissions = [SchedulerUnavailableError("no controller")]
    await submitter.step()
    assert {(job.phase, job.array_key) for job in await all_jobs(bench)} == {(Phase.INTENT, None)}


async def test_where_arrays_are_forbidden_jobs_go_one_by_one(
    bench: Bench, submitter: Submitter
) -> None:
    """An sbatch that refuses an array and takes a single job has said so."""
    await burst(bench, 3)
    bench.scheduler.submissions = [SubmitRefusedError("no arrays here"), "17", "18", "19"]
    for _ in range(4):
        await submitter.step()
    assert bench.scheduler.arrays == [3]
    assert [job.job_id for job in await all_jobs(bench)] == ["17", "18", "19"]
    work = bench.context.preparation.work
    assert [path.name for path in work.jobs.iterdir() if path.name.startswith("arr-")] == []


async def test_refusal_of_array_and_single_job_is_that_of_all(
    bench: Bench, submitter: Submitter
) -> None:
    """Two submissions, not one for each run, and each launch is answered in Slurm's words."""
    await burst(bench, 5)
    bench.scheduler.submissions = [SubmitRefusedError("invalid account")] * 2
    await submitter.step()
    await submitter.step()
    assert len(bench.scheduler.submitted) == 2
    assert {job.phase for job in await all_jobs(bench)} == {Phase.REFUSED}
    await conclude(bench)
    assert await answers(bench) == ["DagsterCloudApiErrorResponse"] * 5


@pytest.mark.parametrize("found_in", ["squeue", "sacct"])
async def test_unclear_array_is_found_by_its_key(
    bench: Bench, submitter: Submitter, found_in: str
) -> None:
    """One task that is found tells of all: an array is made as a whole."""
    await burst(bench, 3)
    bench.scheduler.submissions = [SubmitAmbiguousError("Socket timed out")]
    await submitter.step()
    assert {job.phase for job in await all_jobs(bench)} == {Phase.SUBMITTING}
    (key,) = bench.scheduler.comments
    bench.scheduler.found = [
        JobRecord(job_id="17_1", state=JobState.PENDING, source=found_in, comment=key)
    ]
    await submitter.step()
    assert [job.job_id for job in await all_jobs(bench)] == ["17_0", "17_1", "17_2"]
    assert (len(bench.scheduler.submitted), bench.scheduler.searches) == (1, 1)


async def test_unclear_array_is_submitted_again_only_after_the_search_window(
    bench: Bench, submitter: Submitter
) -> None:
    """Under another key, so that a late find is of this attempt alone."""
    await burst(bench, 2)
    bench.scheduler.submissions = [SubmitAmbiguousError("killed"), "18"]
    await submitter.step()
    bench.clock.now += SEARCH_WINDOW_SECONDS - 1
    await submitter.step()
    assert len(bench.scheduler.submitted) == 1
    bench.clock.now += 2
    await submitter.step()
    await submitter.step()
    first, second = bench.scheduler.comments
    assert first != second
    assert [job.job_id for job in await all_jobs(bench)] == ["18_0", "18_1"]


async def test_array_found_submitting_after_a_crash_is_searched_first(bench: Bench) -> None:
    """The agent died between intent and answer; the next one knows only its database."""
    await burst(bench, 2)
    await bench.context.store.run(
        lambda db: submissions.take(db, "x", "arr-1", limit=9, now=bench.clock.now)
    )
    bench.scheduler.found = [
        JobRecord(job_id="17_0", state=JobState.RUNNING, source="squeue", comment="arr-1")
    ]
    await Submitter(bench).step()
    assert [job.job_id for job in await all_jobs(bench)] == ["17_0", "17_1"]
    assert bench.scheduler.submitted == []


async def test_task_that_has_told_of_its_start_needs_no_search(bench: Bench) -> None:
    """Its report came before sbatch's answer, which then got lost."""
    await burst(bench, 2)

    def write(db: Any) -> None:
        submissions.take(db, "x", "arr-1", limit=9, now=bench.clock.now)
        bench.context.changes.within(
            db,
            "run-1",
            lambda worker, _: node_evidence.observe_start(worker, "c1", "17_1", bench.clock.now),
            source="node",
        )

    await bench.context.store.run(write)
    await Submitter(bench).step()
    assert (await bench.job("run-0")).job_id == "17_0"
    assert bench.scheduler.searches == 0


async def test_task_that_was_asked_to_end_meanwhile_is_cancelled_alone(
    bench: Bench, submitter: Submitter
) -> None:
    """Slurm (22.05) forgets a task that is cancelled while its array waits: that is its end."""
    await burst(bench, 3)
    bench.scheduler.submissions = [SubmitAmbiguousError("Socket timed out")]
    await submitter.step()
    await bench.context.store.run(
        lambda db: workers.change(
            db, "run-1", now=bench.clock.now, source="request", terminate_at=bench.clock.now
        )
    )
    (key,) = bench.scheduler.comments
    waiting = [
        JobRecord(job_id=f"17_{index}", state=JobState.PENDING, source="squeue", comment=key)
        for index in (0, 2)
    ]
    bench.scheduler.found = bench.scheduler.queued = waiting
    await submitter.step()
    await CancelLoop(bench.context).step()
    assert bench.scheduler.cancelled == ["17_1"]
    await WatchLoop(bench.context).step()
    assert [(job.phase, job.state) for job in await all_jobs(bench)] == [
        (Phase.QUEUED, JobState.PENDING),
        (Phase.ENDED, JobState.CANCELLED),
        (Phase.QUEUED, JobState.PENDING),
    ]


@pytest.mark.parametrize(
    "outcome", [LIMIT, SchedulerUnavailableError("away"), SubmitRefusedError("no arrays here")]
)
async def test_job_that_was_asked_to_end_is_not_given_a_second_try(
    bench: Bench, submitter: Submitter, outcome: SchedulerError
) -> None:
    """The others go on."""
    await burst(bench, 2)
    bench.scheduler.submissions = [SubmitAmbiguousError("killed"), outcome]
    await submitter.step()
    await bench.context.store.run(
        lambda db: workers.change(
            db, "run-1", now=bench.clock.now, source="request", terminate_at=bench.clock.now
        )
    )
    bench.clock.now += SEARCH_WINDOW_SECONDS
    await submitter.step()
    assert (await bench.job("run-1")).phase is Phase.WITHDRAWN
    assert (await bench.job("run-0")).phase is not Phase.WITHDRAWN
    assert bench.scheduler.arrays == [2]


async def test_withdrawn_job_is_no_task(bench: Bench, submitter: Submitter) -> None:
    """What was taken back before the array was made stays back."""
    await burst(bench, 3)
    await bench.context.store.run(
        lambda db: workers.change(
            db, "run-1", now=bench.clock.now, source="request", phase=Phase.WITHDRAWN
        )
    )
    bench.scheduler.submissions = ["17"]
    await submitter.step()
    assert [job.job_id for job in await all_jobs(bench)] == ["17_0", None, "17_1"]


async def test_array_is_forgotten_with_the_last_of_its_jobs(
    bench: Bench, submitter: Submitter
) -> None:
    """Its directory links theirs as long as one of them is kept."""
    await burst(bench, 2)
    bench.scheduler.submissions = ["17"]
    await submitter.step()
    (key,) = bench.scheduler.comments
    long_ago = bench.clock.now - workers.KEEP_CONCLUDED_SECONDS - 1

    async def conclude_and_purge(job: str) -> list[str]:
        def write(db: Any) -> list[str]:
            workers.change(db, job, now=long_ago, source="agent", concluded_at=long_ago)
            return workers.purge(db, bench.clock.now - workers.KEEP_CONCLUDED_SECONDS)

        return await bench.context.store.run(write)

    assert await conclude_and_purge("run-0") == ["run-0"]
    assert await conclude_and_purge("run-1") == ["run-1", key]
