"""Evidence, absence, and what a failed query must not do."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from hpc_agent.agent.cancel import CancelLoop
from hpc_agent.agent.watch import WatchLoop
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store import meta, node_faults, outbox
from hpc_agent.store.phases import Phase
from tests.agent.conftest import Bench

SUBMITTED: dict[str, Any] = {"phase": Phase.QUEUED, "job_id": "7", "submitted_at": 1000.0}
STARTED: dict[str, Any] = SUBMITTED | {"phase": Phase.RUNNING, "started_at": 1000.0}
CLAIM = {"slurm_job_id": "7", "hostname": "c1", "restart_count": 0, "started_at": 1.0}
AWAY = SchedulerUnavailableError("away")


def record(state: JobState, source: str = "squeue", **changes: object) -> JobRecord:
    values = {"job_id": "7", "name": "hpc-agent:run-1", "state": state, "source": source} | changes
    return JobRecord(**values)  # type: ignore[arg-type]


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
        record(JobState.RUNNING, job_id=str(number), name=f"hpc-agent:run-{number}", nodes="c1")
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


@pytest.mark.parametrize(("start", "signal"), [(0, None), (1, 9)])
async def test_exit_record_of_an_earlier_start_is_not_the_end_of_a_later_one(
    bench: Bench, start: int, signal: int | None
) -> None:
    """Slurm could not launch the job again that it had requeued: its own word is all there is."""
    await bench.add(**STARTED)
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    ended = {"outcome": "terminated", "signal": 9, "ended_at": 5.0, "restart_count": start}
    (directory / "exit.json").write_text(json.dumps(ended))
    bench.scheduler.queued = [record(JobState.FAILED, restarts=1, exit_code=1)]
    await WatchLoop(bench.context).step()
    job = await bench.job()
    assert (job.phase, job.state, job.signal) == (Phase.ENDED, JobState.FAILED, signal)
    assert job.exit_code == (1 if signal is None else None)


async def test_last_words_of_a_job_are_the_error_of_its_end(bench: Bench) -> None:
    """The line of the log is one line: what the job wrote is behind it."""
    await bench.add(**SUBMITTED)
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    said = "Traceback:\nImportError: x"
    (directory / "exit.json").write_text(
        json.dumps({"exit_code": 3, "outcome": "exited", "ended_at": 5.0, "stderr_tail": said})
    )
    await WatchLoop(bench.context).step()
    (event,) = [json.loads(text) for text in await bench.messages(outbox.EVENT) if "ended" in text]
    assert event["dagsterEvent"]["message"] == "Job 7 ended: FAILED (exit code 3)"
    data = json.loads(event["dagsterEvent"]["eventSpecificData"])
    assert data["error"]["message"] == said


async def test_absence_is_a_loss_only_after_long_under_a_healthy_controller(bench: Bench) -> None:
    """The clock stands still while nobody can know: nobody answers, or nobody looks."""
    await bench.add(**STARTED)
    watch = WatchLoop(bench.context)
    await watch.step()
    for away in ("controller", "queue", "accounting", "unreadable", "agent"):
        bench.scheduler.up = away != "controller"
        bench.scheduler.broken = AWAY if away == "queue" else None
        bench.scheduler.no_accounting = AWAY if away == "accounting" else None
        bench.scheduler.unreadable = ("Welcome!",) if away == "unreadable" else ()
        watch = WatchLoop(bench.context) if away == "agent" else watch
        for _ in range(2):
            bench.clock.now += 3600
            with contextlib.suppress(SchedulerUnavailableError):
                await watch.step()
            if away == "agent":
                break
        bench.scheduler.up, bench.scheduler.broken = True, None
        bench.scheduler.no_accounting, bench.scheduler.unreadable = None, ()
        await watch.step()
        assert (await bench.job()).phase is Phase.RUNNING, away
    for _ in range(2):
        bench.clock.now += 149
        await watch.step()
        assert (await bench.job()).phase is Phase.RUNNING
    bench.clock.now += 10
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


async def test_vanished_job_that_had_not_started_is_submitted_again(bench: Bench) -> None:
    """The controller lost its state: the run waits a little longer, and says why."""
    await bench.add(**SUBMITTED)
    watch = WatchLoop(bench.context)
    for _ in range(4):
        await watch.step()
        bench.clock.now += 140
    worker = await bench.job()
    assert (worker.phase, worker.waits_for) == (
        Phase.INTENT,
        "Slurm has lost job 7 before it started; it is submitted again",
    )


async def test_a_thousand_absent_jobs_cost_three_questions(bench: Bench) -> None:
    """One to the queue, one to accounting, one whether the controller answers."""
    for number in range(1000):
        await bench.add(f"run-{number}", **(STARTED | {"job_id": str(number)}))
    await WatchLoop(bench.context).step()
    scheduler = bench.scheduler
    assert (scheduler.looks, scheduler.accounting_queries, scheduler.pings) == (1, 1, 1)


async def test_unreadable_answer_makes_nothing_absent(bench: Bench) -> None:
    """What is read counts, what is missing may be in what could not be read."""
    await bench.add("run-1", **STARTED)
    await bench.add("run-2", **(STARTED | {"job_id": "8"}))
    bench.scheduler.queued = [record(JobState.COMPLETED)]
    bench.scheduler.unreadable = ("half a rec",)
    await WatchLoop(bench.context).step()
    assert (await bench.job("run-1")).phase is Phase.ENDED
    assert (await bench.job("run-2")).phase is Phase.RUNNING
    assert bench.scheduler.accounting_queries == 0
    said = await bench.context.store.run(lambda db: meta.get(db, meta.UNREADABLE))
    assert json.loads(said or "") == {"squeue": ["half a rec"]}


async def test_record_of_a_reused_id_is_not_believed(bench: Bench) -> None:
    """Two runs with one job id: the controller was killed before it had saved its state."""
    await bench.add("run-1", **STARTED)
    await bench.add("run-2", **(SUBMITTED | {"job_id": "7"}))
    bench.scheduler.queued = [record(JobState.CANCELLED, name="hpc-agent:run-2")]
    await WatchLoop(bench.context).step()
    assert (await bench.job("run-1")).phase is Phase.RUNNING
    assert (await bench.job("run-2")).phase is Phase.ENDED


async def test_second_job_of_one_key_is_known_and_cancelled_once_the_first_has_the_claim(
    bench: Bench,
) -> None:
    """A mute controller carries out an old request after the search had found nothing."""
    await bench.add(**SUBMITTED)
    watch, cancel = WatchLoop(bench.context), CancelLoop(bench.context)
    both = [record(JobState.PENDING), record(JobState.PENDING, job_id="8")]
    bench.scheduler.queued = both
    await watch.step()
    await cancel.step()
    assert bench.scheduler.cancelled == []
    await bench.starts("7")
    bench.scheduler.queued = [record(JobState.RUNNING), both[1]]
    await watch.step()
    await cancel.step()
    assert bench.scheduler.cancelled == ["8"]
    bench.scheduler.queued = [record(JobState.RUNNING), record(JobState.CANCELLED, job_id="8")]
    await watch.step()
    assert (await bench.job()).phase is Phase.RUNNING


async def test_younger_job_that_exits_as_a_duplicate_ends_no_run(bench: Bench) -> None:
    """Its COMPLETED says nothing of the older one, which has the claim in the job directory."""
    await bench.add(**(SUBMITTED | {"job_id": "8"}))
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    (directory / "claim").write_text(json.dumps(CLAIM))
    watch = WatchLoop(bench.context)
    bench.scheduler.queued = [
        record(JobState.COMPLETED, job_id="8"),
        record(JobState.RUNNING, job_id="7"),
    ]
    for _ in range(2):
        await watch.step()
    worker = await bench.job()
    assert (worker.phase, worker.job_id) == (Phase.RUNNING, "7")


async def test_duplicate_that_reports_itself_tells_who_has_the_claim(bench: Bench) -> None:
    """Whatever the order in which the agent learns of the two."""
    await bench.add(**(SUBMITTED | {"job_id": "8"}))
    answer = await bench.reports("duplicate", "8", claimed_by=CLAIM)
    assert not answer.proceed
    worker = await bench.job()
    assert (worker.job_id, worker.is_claimed) == ("7", True)
    bench.scheduler.queued = [record(JobState.COMPLETED, job_id="8")]
    await WatchLoop(bench.context).step()
    assert (await bench.job()).phase is Phase.QUEUED


async def test_one_job_that_cannot_be_judged_stops_no_other(bench: Bench) -> None:
    """Its exit record cannot be read for now; the others end."""
    await bench.add("run-1", **STARTED)
    await bench.add("run-2", **(STARTED | {"job_id": "8"}))
    # A directory that is a file: reading it fails otherwise than by absence.
    bench.context.preparation.work.of("run-1").write_text("")
    bench.scheduler.queued = [
        record(JobState.COMPLETED),
        record(JobState.COMPLETED, job_id="8", name="hpc-agent:run-2"),
    ]
    await WatchLoop(bench.context).step()
    assert (await bench.job("run-2")).phase is Phase.ENDED


async def test_hostile_exit_record_stops_the_watching_of_no_job(bench: Bench) -> None:
    """A lone surrogate is valid JSON, and no text that anything can store."""
    await bench.add("run-1", **STARTED)
    await bench.add("run-2", **(STARTED | {"job_id": "8"}))
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir()
    (directory / "exit.json").write_text('{"exit_code": 1, "stderr_tail": "\\ud800"}')
    bench.scheduler.queued = [
        record(JobState.FAILED),
        record(JobState.COMPLETED, job_id="8", name="hpc-agent:run-2"),
    ]
    await WatchLoop(bench.context).step()
    assert {(await bench.job(key)).phase for key in ("run-1", "run-2")} == {Phase.ENDED}


async def test_silent_accounting_is_told_to_the_run_after_a_minute(bench: Bench) -> None:
    """Once."""
    await bench.add(**STARTED)
    bench.scheduler.no_accounting = SchedulerUnavailableError("slurmdbd is away")
    watch = WatchLoop(bench.context)
    for _ in range(5):
        with pytest.raises(SchedulerUnavailableError):
            await watch.step()
        bench.clock.now += 30
    told = [
        json.loads(payload)["dagsterEvent"]["message"] for payload in await bench.messages("event")
    ]
    assert len(told) == 1
    assert "accounting is away: slurmdbd is away" in told[0]


async def test_job_that_a_node_cancels_before_it_runs_makes_the_node_suspect(bench: Bench) -> None:
    """Two in a row, and the next submission keeps off it; a start there clears it."""
    for number in range(2):
        key = f"run-{number}"
        await bench.add(key, **(SUBMITTED | {"job_id": str(number)}))
        seen = record(
            JobState.CANCELLED,
            job_id=str(number),
            name=f"hpc-agent:{key}",
            end_time=datetime.now(UTC),
            nodes="c1",
        )
        bench.scheduler.queued = [seen]
        # Accounting knows of the job and of its end a moment later, and it alone knows by whom.
        bench.scheduler.accounted = []
        await WatchLoop(bench.context).step()
        assert (await bench.job(key)).phase is Phase.QUEUED
        bench.scheduler.accounted = [replace(seen, state=JobState.RUNNING, source="sacct")]
        await WatchLoop(bench.context).step()
        assert (await bench.job(key)).phase is Phase.QUEUED
        bench.scheduler.accounted = [replace(seen, cancelled_by=0, source="sacct")]
        await WatchLoop(bench.context).step()
        assert (await bench.job(key)).outcome is JobState.LAUNCH_FAILED
    suspects = await bench.context.store.run(lambda db: node_faults.to_avoid(db, 0.0))
    assert suspects == ["c1"]


async def test_job_that_does_not_get_away_is_looked_at_and_cancelled_seldom(bench: Bench) -> None:
    """It stays COMPLETING for hours where an Epilog hangs, and scancel does not help."""
    leaving = {"submitted_at": 900.0, "state": JobState.COMPLETING, "terminate_at": 1000.0}
    await bench.add(**STARTED | leaving)
    bench.scheduler.queued = [record(JobState.COMPLETING)]
    watch, cancel = WatchLoop(bench.context), CancelLoop(bench.context)
    waits = []
    for _ in range(60):
        waits.append(await watch.step())
        await cancel.step()
        bench.clock.now += 10
    assert waits[:6] == [2.0] * 6
    assert min(waits[6:]) >= bench.context.config.scheduler.poll_seconds
    assert bench.scheduler.cancelled == ["7"]


async def test_what_an_op_submits_by_itself_is_no_duplicate(bench: Bench) -> None:
    """It may come from the job directory; it has neither our name nor our script."""
    await bench.add(**STARTED)
    mine = record(JobState.RUNNING, script="/work/jobs/run-1/job.sh")
    own = replace(
        record(JobState.RUNNING, job_id="8", name="wrap"), working_directory="/work/jobs/run-1"
    )
    bench.scheduler.queued = [mine, own]
    await WatchLoop(bench.context).step()
    await CancelLoop(bench.context).step()
    assert bench.scheduler.cancelled == []


async def test_job_that_is_heard_of_is_not_cancelled_by_accounting(bench: Bench) -> None:
    """Accounting says so of all that a killed controller has forgotten; this one is finishing."""
    await bench.add(**STARTED)
    heard = {"run-1": bench.clock.now}
    watch = WatchLoop(bench.context, heard=heard.get)
    bench.scheduler.accounted = [replace(record(JobState.CANCELLED), source="sacct")]
    for _ in range(3):
        await watch.step()
        bench.clock.now += 20
        heard["run-1"] = bench.clock.now
    assert (await bench.job()).phase is Phase.RUNNING
    bench.clock.now += 61
    await watch.step()
    assert (await bench.job()).outcome is JobState.CANCELLED


@pytest.mark.parametrize("state", [JobState.OUT_OF_MEMORY, JobState.TIMEOUT, JobState.PREEMPTED])
async def test_end_that_only_slurm_knows_is_believed_at_once(bench: Bench, state: JobState) -> None:
    """Where a controller forgets jobs within seconds of their end (MinJobAge), accounting says."""
    await bench.add(**STARTED)
    bench.scheduler.accounted = [replace(record(state), source="sacct")]
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir(parents=True)
    killed = {"outcome": "exited", "signal": 9, "key": "run-1", "slurm_job_id": "7"}
    (directory / "exit.json").write_text(json.dumps(killed))
    heard = {"run-1": bench.clock.now}
    await WatchLoop(bench.context, heard=heard.get).step()
    assert (await bench.job()).outcome is state


async def test_job_that_has_told_its_success_has_succeeded(bench: Bench) -> None:
    """Whatever accounting makes of what the controller has forgotten."""
    await bench.add(**STARTED)
    bench.scheduler.accounted = [replace(record(JobState.CANCELLED), source="sacct")]
    directory = bench.context.preparation.work.of("run-1")
    directory.mkdir(parents=True)
    ended = {"outcome": "exited", "exit_code": 0, "key": "run-1", "slurm_job_id": "7"}
    (directory / "exit.json").write_text(json.dumps(ended))
    heard = {"run-1": bench.clock.now}
    await WatchLoop(bench.context, heard=heard.get).step()
    assert (await bench.job()).outcome is JobState.COMPLETED


async def test_job_that_is_heard_of_is_not_lost(bench: Bench) -> None:
    """A controller that was killed has forgotten it; its requests still come through the relay."""
    await bench.add(**STARTED)
    heard = {"run-1": bench.clock.now}
    watch = WatchLoop(bench.context, heard=heard.get)
    for _ in range(10):
        await watch.step()
        bench.clock.now += 140
        heard["run-1"] = bench.clock.now
    assert (await bench.job()).phase is Phase.RUNNING
    for _ in range(8):
        await watch.step()
        bench.clock.now += 140
    assert (await bench.job()).phase is Phase.LOST
