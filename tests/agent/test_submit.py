"""Intents become jobs, each exactly once, whatever sbatch does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hpc_agent.agent.conclude import ConcludeLoop
from hpc_agent.agent.search import GONE_WINDOW_SECONDS, SBATCH_SECONDS, SEARCH_WINDOW_SECONDS
from hpc_agent.agent.submit import SubmitLoop
from hpc_agent.errors import (
    SchedulerLimitError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store import node_faults, outbox
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench


class Submitter:
    """The loop, stepped by hand."""

    def __init__(self, bench: Bench) -> None:
        self.tasks = bench.context.tasks
        self.loop = SubmitLoop(bench.context)

    async def step(self) -> float:
        """Do one step and wait for the submissions that it started."""
        wait = await self.loop.step()
        await self.tasks.finish()
        return wait


@pytest.fixture
async def submitter(bench: Bench) -> AsyncIterator[Submitter]:
    made = Submitter(bench)
    yield made
    await made.tasks.dismiss()


async def conclude(bench: Bench) -> None:
    """Let the last word be said."""
    loop = ConcludeLoop(
        bench.context,
        None,  # type: ignore[arg-type]  # no code server is concluded here
        spooled=lambda _: False,
        revoke=lambda _: None,
    )
    await loop.step()


async def answers(bench: Bench) -> list[str]:
    """Return the class of each answer in the outbox."""
    return [
        json.loads(payload)["response"]["__class__"]
        for payload in await bench.messages(outbox.RESPONSE)
    ]


async def told(bench: Bench) -> list[str]:
    """Return what runs' logs are told."""
    return [
        json.loads(payload)["dagsterEvent"]["message"]
        for payload in await bench.messages(outbox.EVENT)
    ]


async def test_accepted_job_answers_its_request(bench: Bench, submitter: Submitter) -> None:
    """The job id, the answer and the line in the log are one transaction."""
    await bench.add()
    bench.scheduler.submissions = ["7"]
    await submitter.step()
    job = await bench.job()
    assert (job.phase, job.job_id) == (Phase.QUEUED, "7")
    assert await answers(bench) == ["DagsterCloudApiSuccess"]
    assert await told(bench) == ["Run worker submitted as Slurm job 7."]


async def test_refused_job_fails_the_launch_in_slurms_words(
    bench: Bench, submitter: Submitter
) -> None:
    """What sbatch said is in the answer."""
    await bench.add()
    bench.scheduler.submissions = [SubmitRefusedError("invalid partition specified: x")]
    await submitter.step()
    assert (await bench.job()).phase is Phase.REFUSED
    await conclude(bench)
    (payload,) = await bench.messages(outbox.RESPONSE)
    assert "invalid partition specified: x" in payload
    assert await answers(bench) == ["DagsterCloudApiErrorResponse"]


@pytest.mark.parametrize(
    "error",
    [SchedulerLimitError("AssocMaxSubmitJobLimit"), SchedulerUnavailableError("no controller")],
)
async def test_limit_and_absence_are_back_pressure(
    bench: Bench, submitter: Submitter, error: SchedulerLimitError | SchedulerUnavailableError
) -> None:
    """The run waits, says why once, and goes on when it can."""
    await bench.add()
    bench.scheduler.submissions = [error, error, "7"]
    for _ in range(2):
        await submitter.step()
        assert (await bench.job()).phase is Phase.INTENT
        assert await answers(bench) == []
        bench.clock.now += 20
    await submitter.step()
    assert (await bench.job()).job_id == "7"
    assert await told(bench) == [
        f"Run worker waits to be submitted: {error}",
        "Run worker submitted as Slurm job 7.",
    ]


async def test_job_that_an_unclear_sbatch_made_is_found(bench: Bench, submitter: Submitter) -> None:
    """The controller has the key: no second sbatch."""
    await bench.add()
    bench.scheduler.submissions = [SubmitAmbiguousError("Socket timed out")]
    await submitter.step()
    assert (await bench.job()).phase is Phase.SUBMITTING
    bench.scheduler.found = [
        JobRecord(job_id="9", state=JobState.PENDING, source="squeue", comment="run-1")
    ]
    await submitter.step()
    assert (await bench.job()).job_id == "9"
    assert len(bench.scheduler.submitted) == 1
    assert await answers(bench) == ["DagsterCloudApiSuccess"]


async def test_unclear_sbatch_is_repeated_only_after_the_search_window(
    bench: Bench, submitter: Submitter
) -> None:
    """sbatch retries by itself for two minutes: its job may come late."""
    await bench.add()
    bench.scheduler.submissions = [SubmitAmbiguousError("killed"), "8"]
    await submitter.step()
    bench.clock.now += SEARCH_WINDOW_SECONDS - 1
    await submitter.step()
    assert len(bench.scheduler.submitted) == 1
    bench.clock.now += 2
    await submitter.step()
    await submitter.step()
    assert len(bench.scheduler.submitted) == 2
    assert (await bench.job()).job_id == "8"


async def test_job_found_submitting_after_a_crash_is_searched_first(
    bench: Bench, submitter: Submitter
) -> None:
    """The agent died between sbatch and its answer."""
    await bench.add(phase=Phase.SUBMITTING, submitting_since=bench.clock.now)
    bench.scheduler.found = [
        JobRecord(job_id="9", state=JobState.RUNNING, source="squeue", comment="run-1")
    ]
    await submitter.step()
    assert (await bench.job()).job_id == "9"
    assert bench.scheduler.submitted == []


async def test_failed_search_concludes_nothing(bench: Bench, submitter: Submitter) -> None:
    """An absent controller is no proof that there is no job."""
    await bench.add(phase=Phase.SUBMITTING, submitting_since=0.0)
    bench.scheduler.broken = SchedulerUnavailableError("away")
    await submitter.step()
    assert (await bench.job()).phase is Phase.SUBMITTING
    assert "nobody can be asked" in (await told(bench))[0]


async def test_withdrawn_intent_is_not_submitted(bench: Bench, submitter: Submitter) -> None:
    """What was taken back meanwhile stays back."""
    await bench.add(phase=Phase.WITHDRAWN)
    await submitter.step()
    assert bench.scheduler.submitted == []


async def test_doubtful_submission_delays_no_other(bench: Bench, submitter: Submitter) -> None:
    """Its search waits for a scheduler that is away; the next run is submitted all the same."""
    await bench.add("run-1", phase=Phase.SUBMITTING, submitting_since=0.0)
    await bench.add("run-2")
    bench.scheduler.broken = SchedulerUnavailableError("slurmdbd is away")
    bench.scheduler.submissions = ["8"]
    await submitter.step()
    assert (await bench.job("run-2")).job_id == "8"


async def test_search_window_counts_from_the_end_of_the_call(
    bench: Bench, submitter: Submitter
) -> None:
    """An sbatch that is killed at its own deadline leaves the whole window."""
    await bench.add()
    bench.scheduler.submissions = [SubmitAmbiguousError("killed after 150 s")]
    bench.scheduler.answers_when = asyncio.Event()
    await submitter.loop.step()
    bench.clock.now += SBATCH_SECONDS
    bench.scheduler.answers_when.set()
    await submitter.tasks.finish()
    await submitter.step()
    assert (await bench.job()).phase is Phase.SUBMITTING
    bench.clock.now += SEARCH_WINDOW_SECONDS
    await submitter.step()
    assert (await bench.job()).phase is Phase.INTENT


async def test_sbatch_of_an_agent_that_died_is_given_its_own_time(
    bench: Bench, submitter: Submitter
) -> None:
    """As long as it is at work, its job may come; when it is gone, only for a moment more."""
    await bench.add(phase=Phase.SUBMITTING, submitting_since=bench.clock.now)
    sbatch = await asyncio.create_subprocess_exec("sh", "-c", "sleep 60; true", "--comment=run-1")
    try:
        bench.clock.now += SEARCH_WINDOW_SECONDS + SBATCH_SECONDS - 1
        await submitter.step()
        assert (await bench.job()).phase is Phase.SUBMITTING
    finally:
        sbatch.kill()
        await sbatch.wait()
    await submitter.step()
    assert (await bench.job()).phase is Phase.INTENT


async def test_sbatch_that_died_with_its_agent_is_waited_for_a_moment(
    bench: Bench, submitter: Submitter
) -> None:
    """Its request may be on the way to the controller."""
    await bench.add(phase=Phase.SUBMITTING, submitting_since=bench.clock.now)
    bench.clock.now += GONE_WINDOW_SECONDS - 1
    await submitter.step()
    assert (await bench.job()).phase is Phase.SUBMITTING
    bench.clock.now += 2
    await submitter.step()
    assert (await bench.job()).phase is Phase.INTENT


async def test_words_that_nobody_knows_are_a_refusal_when_no_job_comes_of_them_twice(
    bench: Bench, submitter: Submitter
) -> None:
    """A site's wrapper may say anything; a run must not be submitted for ever."""
    await bench.add()
    words = SubmitAmbiguousError("computer says maybe", unknown_words=True)
    bench.scheduler.submissions = [words, words]
    for _ in range(2):
        await submitter.step()
        bench.clock.now += SEARCH_WINDOW_SECONDS
        await submitter.step()
    worker = await bench.job()
    assert (worker.phase, worker.message) == (Phase.REFUSED, "computer says maybe")


async def test_second_attempt_that_sbatch_refuses_fails_the_run(
    bench: Bench, submitter: Submitter
) -> None:
    """Its request was answered long ago: the run itself must be told."""
    await bench.add(attempt=2, request_id=None)
    bench.scheduler.submissions = [SubmitRefusedError("memory specification can not be satisfied")]
    await submitter.step()
    run = json.dumps({"status": {"__enum__": "DagsterRunStatus.STARTED"}})
    bench.control_plane.answer = {"data": {"runs": {"getRunById": run}}}
    await conclude(bench)
    (message,) = [line for line in await told(bench) if line]
    assert "refused attempt 2 of the run: memory specification can not be satisfied" in message


async def test_suspect_node_is_kept_off(bench: Bench, submitter: Submitter) -> None:
    """For the time that agent.yaml says."""

    def write(db: Any) -> None:
        for _ in range(2):
            node_faults.note(db, "c1", "job 3: LAUNCH_FAILED", bench.clock.now)

    await bench.context.store.run(write)
    await bench.add("run-1")
    bench.scheduler.submissions = ["7", "8"]
    await submitter.step()
    bench.clock.now += 3601
    await bench.add("run-2")
    await submitter.step()
    assert bench.scheduler.excluded == [("c1",), ()]


async def test_suspect_node_is_better_than_none(bench: Bench, submitter: Submitter) -> None:
    """Slurm refuses a job whose partition has no other node: that is no fault of the run."""

    def write(db: Any) -> None:
        for _ in range(2):
            node_faults.note(db, "c1", "job 3: LAUNCH_FAILED", bench.clock.now)

    await bench.context.store.run(write)
    await bench.add()
    words = "Requested node configuration is not available"
    bench.scheduler.submissions = [SubmitRefusedError(words), "7"]
    await submitter.step()
    assert bench.scheduler.excluded == [("c1",), ()]
    assert (await bench.job()).job_id == "7"


async def test_search_does_not_find_the_job_that_was_lost_before(
    bench: Bench, submitter: Submitter
) -> None:
    """Accounting still has it under the same key, as if it were waiting."""
    await bench.add(phase=Phase.SUBMITTING, submitting_since=990.0, job_id="7", is_over=True)
    bench.scheduler.found = [
        JobRecord(job_id="7", state=JobState.PENDING, source="sacct", comment="run-1")
    ]
    await submitter.step()
    assert (await bench.job()).phase is Phase.SUBMITTING
    bench.scheduler.found.append(
        JobRecord(job_id="9", state=JobState.PENDING, source="squeue", comment="run-1")
    )
    await submitter.step()
    worker = await bench.job()
    assert (worker.phase, worker.job_id) == (Phase.QUEUED, "9")
