"""From evidence to changes, row by row."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from hpc_agent.jobs.wording import describe, describe_end
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store.jobs import Job, JobKind, Phase
from hpc_agent.workers import evidence
from hpc_agent.workers.evidence import ExitRecord

NOW = 1000.0
QUEUED = Job(
    key="run-1",
    kind=JobKind.RUN_WORKER,
    phase=Phase.QUEUED,
    deployment="prod",
    location="here",
    run_id="r",
    created_at=900.0,
    job_id="7",
    state=JobState.PENDING,
    submitted_at=901.0,
)


def record(state: JobState, **changes: object) -> JobRecord:
    return JobRecord(job_id="7", state=state, source="squeue", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", list(JobState))
def test_every_state_leads_to_a_phase(state: JobState) -> None:
    """Final states end the job, waiting ones queue it, UNKNOWN changes nothing, others run it."""
    changes = evidence.observe_record(QUEUED, record(state), NOW)
    if state is JobState.UNKNOWN:
        assert changes == {}
    elif state.is_final:
        assert changes["phase"] is Phase.ENDED
    elif state.is_waiting:
        assert changes.get("phase", QUEUED.phase) is Phase.QUEUED
    else:
        assert changes["phase"] is Phase.RUNNING


def test_completing_is_not_completed() -> None:
    """A job that is being cleaned up may still turn out to have failed."""
    changes = evidence.observe_record(QUEUED, record(JobState.COMPLETING), NOW)
    assert changes["phase"] is Phase.RUNNING


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.is_final])
def test_nothing_changes_a_job_that_is_over(phase: Phase) -> None:
    """Late news are no news."""
    over = replace(QUEUED, phase=phase)
    exit_record = ExitRecord.from_json({"exit_code": 0, "ended_at": 1.0})
    assert evidence.observe_record(over, record(JobState.RUNNING), NOW) == {}
    assert evidence.observe_start(over, "c1", "7", NOW) == {}
    assert evidence.observe_exit(over, exit_record, NOW) == {}


def test_requeued_job_waits_again() -> None:
    """A requeue takes the start back."""
    running = replace(
        QUEUED, phase=Phase.RUNNING, state=JobState.RUNNING, nodes="c1", started_at=950.0
    )
    changes = evidence.observe_record(running, record(JobState.PENDING, reason="BeginTime"), NOW)
    assert (changes["phase"], changes["nodes"], changes["started_at"]) == (Phase.QUEUED, "", None)


def test_absence_alone_ends_a_job_only_after_its_time() -> None:
    """First the clock starts; only a long absence is a loss."""
    assert evidence.absence(QUEUED, NOW, 300.0) == {"absent_since": NOW}
    missing = replace(QUEUED, absent_since=NOW)
    assert evidence.absence(missing, NOW + 299, 300.0) == {}
    assert evidence.absence(missing, NOW + 300, 300.0)["phase"] is Phase.LOST


def test_job_that_comes_back_is_not_absent() -> None:
    """One sighting stops the clock."""
    missing = replace(QUEUED, absent_since=NOW)
    changes = evidence.observe_record(missing, record(JobState.PENDING), NOW + 200)
    assert changes == {"absent_since": None}


@pytest.mark.parametrize(
    ("content", "state"),
    [
        ({"exit_code": 0, "ended_at": 1.0}, JobState.COMPLETED),
        ({"exit_code": 3, "ended_at": 1.0}, JobState.FAILED),
        ({"exit_code": None, "signal": 15, "ended_at": 1.0}, JobState.FAILED),
        ({}, JobState.FAILED),
    ],
)
def test_exit_record_ends_a_job(content: dict[str, object], state: JobState) -> None:
    """Without an exit code there is no success."""
    changes = evidence.observe_exit(QUEUED, ExitRecord.from_json(content), NOW)
    assert (changes["phase"], changes["state"]) == (Phase.ENDED, state)


def test_pending_is_told_with_reason_and_start() -> None:
    """The words are those that a user reads in the UI."""
    changes = evidence.observe_record(
        QUEUED,
        record(
            JobState.PENDING,
            reason="Priority",
            expected_start=datetime(2026, 1, 2, 14, 3, tzinfo=UTC),
        ),
        NOW,
    )
    assert describe(replace(QUEUED, **changes)) == (
        "job 7, PENDING (Priority: jobs of higher priority come first), "
        "expected to start 2026-01-02 14:03 UTC"
    )


def test_end_comes_with_advice() -> None:
    """What happened, and what to do."""
    out_of_memory = replace(QUEUED, phase=Phase.ENDED, state=JobState.OUT_OF_MEMORY)
    assert "raise dagster-hpc/mem" in describe_end(out_of_memory)
    failed = replace(
        QUEUED, phase=Phase.ENDED, state=JobState.FAILED, exit_code=1, message="ImportError: x"
    )
    assert describe_end(failed) == "FAILED (exit code 1)\nImportError: x"


def test_job_that_told_its_end_is_leaving_until_slurm_says_how() -> None:
    """Slurm sees it run for a moment longer; a requeue ends the wait as well."""
    running = replace(QUEUED, phase=Phase.RUNNING, state=JobState.RUNNING)
    leaving = replace(running, **evidence.observe_leaving(running))
    assert leaving.state is JobState.COMPLETING
    assert not evidence.observe_record(leaving, record(JobState.RUNNING), NOW)
    ended = evidence.observe_record(leaving, record(JobState.PREEMPTED), NOW)
    assert ended["phase"] is Phase.ENDED
    waiting = evidence.observe_record(leaving, record(JobState.PENDING), NOW)
    assert waiting["phase"] is Phase.QUEUED


def test_job_that_ended_on_the_walltime_warning_ran_out_of_time() -> None:
    """Slurm calls it FAILED, since it ended before its limit."""
    warned = ExitRecord.from_json({"outcome": "terminated", "exit_code": 1, "ended_on": "SIGUSR1"})
    running = replace(QUEUED, phase=Phase.RUNNING, state=JobState.RUNNING)
    assert evidence.observe_exit(running, warned, NOW)["state"] is JobState.TIMEOUT
    asked = replace(running, terminate_at=NOW)
    assert evidence.observe_exit(asked, warned, NOW)["state"] is JobState.CANCELLED
