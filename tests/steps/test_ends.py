"""How jobs of steps end, start again and are told, beyond the step API's own answers."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from hpc_agent.agent.purge import collect_garbage
from hpc_agent.inspection.explanation import read_explanation
from hpc_agent.inspection.options import explain
from hpc_agent.relay.identity import JobReport, ReportAnswer
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.workers import evidence
from tests.steps.conftest import RUN_ID, RUNNER, TOKENS, Asking
from tests.steps.test_api import a_command, a_step


async def test_step_that_never_claimed_its_work_is_begun_again(asking: Asking) -> None:
    """A node that refuses a job leaves it COMPLETED: nothing of the command has run."""
    await asking.submit(a_command("solve"))
    await asking.submitted("11")
    worker = await asking.step("solve")
    record = JobRecord(
        job_id="11",
        name=f"hpc-agent:{worker.key}",
        state=JobState.COMPLETED,
        source="sacct",
        exit_code=0,
    )
    await asking.bench.context.changes.apply(
        worker.key,
        lambda worker, own: evidence.observe_record(worker, own[0], record, 1000.0),
        source="sacct",
    )
    assert (await asking.step("solve")).outcome is JobState.LAUNCH_FAILED
    await asking.conclude.step()
    assert (await asking.step("solve")).attempt == 2


@pytest.mark.parametrize("tags", [{"dagster-hpc/on-preempt": "requeue"}, {}])
async def test_restart_of_a_step_goes_by_its_own_policy(
    asking: Asking, tags: dict[str, str]
) -> None:
    """The run's tags let no job be requeued: only the step's own do."""
    asking.run_is("STARTED")
    await asking.submit(a_command("solve", steps=[{"key": "solve", "tags": tags}]))
    await asking.submitted("11")
    assert (await started(asking, "solve", restart_count=0)).proceed
    answer = await started(asking, "solve", restart_count=1)
    assert answer.proceed is bool(tags)
    assert ("no policy" in answer.reason) is not bool(tags)


async def test_request_that_a_newer_agent_has_kept_is_read_all_the_same(asking: Asking) -> None:
    await preempted(asking)
    await kept_differently(asking, "json_set(content, '$.later', 1, '$.steps[0].later', 1)")
    await asking.conclude.step()
    step = await asking.step("fit")
    assert (step.attempt, step.phase) == (2, Phase.INTENT)


async def test_step_whose_kept_request_cannot_be_read_ends_with_the_reason(asking: Asking) -> None:
    await preempted(asking)
    await kept_differently(asking, "json_remove(content, '$.arguments')")
    await asking.conclude.step()
    assert (await asking.step("fit")).concluded_at is not None
    told = [text for text in await asking.bench.messages("event") if "another version" in text]
    assert len(told) == 1


async def test_step_is_explained_with_its_own_attempts(asking: Asking) -> None:
    """By its key and by the id of its job; and its run without its steps."""
    await preempted(asking, "dagster-hpc/partitoin")
    first = (await asking.step("fit")).key
    await asking.submit(a_step("other"), a_step("fit", attempt=1))
    await asking.conclude.step()
    config = asking.bench.context.config
    for name in (first, "11"):
        found = await asyncio.to_thread(read_explanation, config, name)
        assert [(each["step"], each["attempt"]) for each in found.attempts] == [
            ("fit", 1),
            ("fit", 2),
        ]
        assert any(row["option"] == "mem" and row["value"] == "2G" for row in found.options)
    of_run = await asyncio.to_thread(read_explanation, config, RUNNER)
    assert [each["key"] for each in of_run.attempts] == [RUNNER]
    (options,) = await asyncio.to_thread(explain, config, first)
    assert options.title == f"step fit of run {RUN_ID}, attempt 1, job 11"
    second = (await asking.step("fit")).key
    (options,) = await asyncio.to_thread(explain, config, second)
    assert "did you mean dagster-hpc/partition" in " ".join(options.notes)
    await kept_differently(asking, "'{}'")
    assert (await asyncio.to_thread(explain, config, second))[0].notes == []


async def test_commands_of_a_step_end_with_it(asking: Asking) -> None:
    """Its process was killed, or it would have ended them; those of other steps go on."""
    await asking.submit(a_step(), a_step("other", tags={"dagster-hpc/mem": "1G"}))
    await asking.submitted("11", "12")
    for name in ("fit", "other"):
        asked = a_command("./solve", name=f"{name}.command-1")
        await asking.submit(asked, key=(await asking.step(name)).key)
    await asking.change("fit", phase=Phase.RUNNING, started_at=995.0)
    await asking.change("fit", phase=Phase.ENDED, outcome=JobState.TIMEOUT, ended_at=999.0)
    await asking.conclude.step()
    assert (await asking.step("fit.command-1")).phase is Phase.WITHDRAWN
    assert (await asking.step("other.command-1")).terminate_at is None


async def test_step_that_is_begun_again_keeps_its_commands(asking: Asking) -> None:
    """Its next process finds them by name; they end with the last one."""
    await asking.submit(a_step(tags={"dagster-hpc/on-preempt": "resubmit"}))
    await asking.submitted("11")
    asked = a_command("./solve", name="fit.command-1")
    await asking.submit(asked, key=(await asking.step("fit")).key)
    await asking.change("fit", phase=Phase.RUNNING, started_at=995.0)
    await asking.change("fit", phase=Phase.ENDED, outcome=JobState.PREEMPTED, ended_at=999.0)
    await asking.conclude.step()
    assert (await asking.step("fit")).attempt == 2
    assert (await asking.step("fit.command-1")).phase is Phase.INTENT
    await asking.change("fit", phase=Phase.WITHDRAWN)
    await asking.conclude.step()
    assert (await asking.step("fit.command-1")).phase is Phase.WITHDRAWN


async def test_step_of_a_run_that_goes_on_is_not_forgotten(asking: Asking) -> None:
    """It would be executed a second time, and its directory is that of later attempts too."""
    await preempted(asking)
    first = asking.bench.context.preparation.work.of((await asking.step("fit")).key)
    await asking.conclude.step()
    await collect_garbage(asking.bench.context, older_than_seconds=-1, dry_run=False)
    assert first.exists()
    (status,) = await asking.submit(a_step("fit"))
    assert (status["phase"], status["restarts"]) == ("waiting", 1)


async def test_directory_of_a_step_that_is_about_to_be_asked_for_stays(asking: Asking) -> None:
    """What it needs is put there first; an hour later nobody asks any more."""
    asking.bench.clock.now = time.time()
    for name in ("fit", "given-up"):
        answer = await asking.post("/directory", {"name": name, "attempt": 0})
        (Path(answer.json()["directory"]) / "exchange").mkdir(parents=True)
    given_up = Path(answer.json()["directory"])
    os.utime(given_up, (time.time() - 3700, time.time() - 3700))
    work = asking.bench.context.preparation.work
    (work.jobs / "of-nobody").mkdir()
    said = await collect_garbage(asking.bench.context, older_than_seconds=1e6, dry_run=False)
    assert "2 of nobody" in said
    (left,) = await asyncio.to_thread(work.files.names, work.jobs)
    assert left.startswith("stp-")
    assert left != given_up.name


async def started(asking: Asking, name: str, *, restart_count: int) -> ReportAnswer:
    """Let a step's job say that it starts."""
    identity = await asking.reports.identify(TOKENS.token((await asking.step(name)).key))
    assert identity is not None
    report = JobReport(
        event="started", hostname="c1", slurm_job_id="11", restart_count=restart_count
    )
    return await asking.reports.receive(identity, report)


async def preempted(asking: Asking, *more_tags: str) -> None:
    """Let Slurm end a step that is to go on in another job."""
    tags = {"dagster-hpc/on-preempt": "resubmit", "dagster-hpc/mem": "2G"}
    await asking.submit(a_step("fit", tags=tags | dict.fromkeys(more_tags, "x")))
    await asking.submitted("11")
    await asking.change("fit", phase=Phase.RUNNING)
    await asking.change("fit", phase=Phase.ENDED, ended_at=1000.0, outcome=JobState.PREEMPTED)


async def kept_differently(asking: Asking, content: str) -> None:
    """Let the request of all steps be kept as an SQL expression says."""
    await asking.bench.context.store.run(
        lambda db: db.execute(f"UPDATE step_requests SET content = {content}")  # noqa: S608
    )
