"""From evidence to changes, row by row."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from hpc_agent.jobs.exit_record import ExitRecord
from hpc_agent.jobs.wording import describe, describe_end
from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import evidence, node_evidence
from hpc_agent.workers.change import NOTHING, Change
from tests.workers import a_worker

NOW = 1000.0
VALUES: dict[str, Any] = {
    "key": "run-1",
    "kind": WorkerKind.RUN_WORKER,
    "phase": Phase.QUEUED,
    "deployment": "prod",
    "location": "here",
    "run_id": "r",
    "created_at": 900.0,
    "job_id": "7",
    "state": JobState.PENDING,
    "submitted_at": 901.0,
}
RUNNING: dict[str, Any] = {
    "phase": Phase.RUNNING,
    "state": JobState.RUNNING,
    "started_at": 950.0,
}


def worker(**changes: Any) -> Worker:
    return a_worker(**(VALUES | changes))


def job_of(worker: Worker) -> Job:
    assert worker.job is not None
    return worker.job


def another(worker: Worker, job_id: str = "8", **changes: Any) -> Job:
    return replace(job_of(worker), id=1, job_id=job_id, **changes)


def record(state: JobState, **changes: Any) -> JobRecord:
    values: dict[str, Any] = {"job_id": "7", "state": state, "source": "squeue"}
    return JobRecord(**(values | changes))


def observed(worker: Worker, record: JobRecord, now: float = NOW) -> Change:
    return evidence.observe_record(worker, job_of(worker), record, now)


def exit_record(**content: Any) -> ExitRecord:
    found = ExitRecord.parse({"outcome": "exited", "ended_at": 1.0} | content)
    assert found is not None
    return found


def after(worker: Worker, change: Change) -> Worker:
    """Return what a change makes of a worker."""
    phase = change.phase or worker.phase
    job = replace(job_of(worker), **change.job)
    return replace(worker, **change.worker, phase=phase, job=job)


@pytest.mark.parametrize("state", list(JobState))
def test_every_state_leads_to_a_phase(state: JobState) -> None:
    """Final states end the worker, waiting ones queue it, UNKNOWN changes nothing."""
    change = observed(worker(is_claimed=True), record(state))
    if state is JobState.UNKNOWN:
        assert change is NOTHING
    elif state.is_final:
        assert (change.phase, change.worker["outcome"]) == (Phase.ENDED, state)
    elif state.is_waiting:
        assert change.phase in {None, Phase.QUEUED}
    else:
        assert change.phase is Phase.RUNNING


def test_completing_is_not_completed() -> None:
    """A job that is being cleaned up may still turn out to have failed."""
    assert observed(worker(), record(JobState.COMPLETING)).phase is Phase.RUNNING


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.is_final])
def test_nothing_changes_a_worker_that_is_over(phase: Phase) -> None:
    """Late news are no news; at most its job is seen to go."""
    over = worker(phase=phase)
    change = observed(over, record(JobState.RUNNING))
    assert (change.phase, change.worker) == (None, {})
    assert node_evidence.observe_start(over, "c1", "7", NOW) is NOTHING
    assert node_evidence.observe_exit(over, exit_record(exit_code=0), NOW) is NOTHING


def test_requeued_job_waits_again() -> None:
    """A requeue takes the start back."""
    running = worker(**RUNNING, nodes="c1")
    change = observed(running, record(JobState.PENDING, reason="BeginTime"))
    assert (change.phase, change.worker["started_at"]) == (Phase.QUEUED, None)
    assert (change.job["nodes"], change.job["started_at"]) == ("", None)


def absent(
    worker: Worker, seconds: float, *, others_live: bool = False, limit: float = 300.0
) -> Change:
    return evidence.absence(
        worker,
        job_of(worker),
        NOW,
        seconds=seconds,
        lost_after_seconds=limit,
        others_live=others_live,
    )


def test_absence_alone_ends_a_worker_only_after_its_time() -> None:
    """Only what was seen counts: a first look adds nothing, however long ago the last one was."""
    running = worker(**RUNNING)
    assert absent(running, 0.0, limit=0.0).phase is None
    assert absent(running, 299.0).phase is None
    missing = replace(running, job=replace(job_of(running), absent_seconds=280.0))
    assert absent(missing, 19.0).phase is None
    assert absent(missing, 20.0).phase is Phase.LOST


def test_job_that_vanished_before_it_started_is_submitted_again() -> None:
    """Nothing of it can have run, and the claim keeps a late one from running beside it."""
    change = absent(worker(), 301.0)
    assert (change.phase, change.job["is_over"]) == (Phase.INTENT, True)
    assert "submitted again" in change.worker["waits_for"]
    asked = worker(terminate_at=NOW)
    assert absent(asked, 301.0).phase is Phase.WITHDRAWN


def test_job_that_comes_back_is_not_absent() -> None:
    """One sighting stops the clock."""
    waiting = worker()
    missing = replace(waiting, job=replace(job_of(waiting), absent_seconds=200.0))
    assert observed(missing, record(JobState.PENDING)).job == {"absent_seconds": 0.0}


@pytest.mark.parametrize("others_live", [True, False])
def test_end_of_one_of_two_jobs_without_a_claim_is_no_end(others_live: bool) -> None:
    """Until it is known which of them has the work, the last one decides."""
    waiting = worker()
    change = evidence.observe_record(
        waiting, job_of(waiting), record(JobState.COMPLETED), NOW, others_live=others_live
    )
    assert change.phase is (None if others_live else Phase.ENDED)
    assert change.job["is_over"] is True


@pytest.mark.parametrize(
    "state", [JobState.COMPLETED, JobState.FAILED, JobState.RUNNING, JobState.PENDING]
)
def test_duplicate_of_the_claimant_changes_nothing_but_itself(state: JobState) -> None:
    """It exits with COMPLETED, and the run goes on."""
    running = worker(**RUNNING)
    duplicate = another(running, state=JobState.RUNNING)
    change = evidence.observe_record(running, duplicate, record(state, job_id="8"), NOW)
    assert (change.phase, change.worker, change.is_current) == (None, {}, False)
    gone = evidence.absence(running, duplicate, NOW, seconds=999.0, lost_after_seconds=300.0)
    assert (gone.phase, gone.job) == (None, {"is_over": True})


def test_start_makes_the_reporting_job_the_workers() -> None:
    """Whichever sbatch had told of."""
    change = node_evidence.observe_start(worker(), "c1", "8", NOW)
    assert (change.phase, change.job_id, change.is_claim) == (Phase.RUNNING, "8", True)


@pytest.mark.parametrize(
    ("marks", "is_ours"),
    [
        ({"comment": "run-1"}, True),
        ({"name": "hpc-agent:run-1"}, True),
        ({"working_directory": "/work/jobs/run-1", "name": "x", "comment": "y"}, True),
        ({"script": "/work/jobs/run-1/job.sh", "name": "x"}, True),
        ({"name": "hpc-agent:run-2", "comment": "run-2"}, False),
        ({"name": "hpc-agent:run-2", "submit_time": datetime.fromtimestamp(901, UTC)}, False),
        ({"name": "somebody's"}, False),
        ({"name": "somebody's", "submit_time": datetime.fromtimestamp(5000, UTC)}, False),
        ({"name": "rewritten", "submit_time": datetime.fromtimestamp(902, UTC)}, True),
    ],
)
def test_record_of_a_reused_id_is_somebody_elses(marks: dict[str, Any], is_ours: bool) -> None:
    """Ids are reused after a controller has lost its state."""
    waiting = worker()
    assert evidence.belongs(record(JobState.RUNNING, **marks), waiting, job_of(waiting)) is is_ours


def test_known_submit_time_tells_jobs_of_one_id_apart() -> None:
    """To the second."""
    waiting = worker(submit_time=901.0, name="rewritten")
    for at, is_ours in ((901, True), (902, False)):
        found = record(
            JobState.RUNNING, name="rewritten", submit_time=datetime.fromtimestamp(at, UTC)
        )
        assert evidence.belongs(found, waiting, job_of(waiting)) is is_ours


@pytest.mark.parametrize(
    ("content", "state"),
    [
        ({"exit_code": 0}, JobState.COMPLETED),
        ({"exit_code": 3}, JobState.FAILED),
        ({"exit_code": None, "signal": 15}, JobState.FAILED),
    ],
)
def test_exit_record_ends_a_worker(content: dict[str, Any], state: JobState) -> None:
    """Without an exit code there is no success."""
    change = node_evidence.observe_exit(worker(), exit_record(**content), NOW)
    assert (change.phase, change.worker["outcome"]) == (Phase.ENDED, state)


@pytest.mark.parametrize(
    "content", [{"slurm_job_id": "8"}, {"key": "run-2"}, {"slurm_job_id": "7", "restart_count": 0}]
)
def test_exit_record_of_another_start_ends_nothing(content: dict[str, Any]) -> None:
    """A duplicate's, a stranger's, or that of the start before a requeue."""
    running = worker(**RUNNING, restart_count=1)
    assert node_evidence.observe_exit(running, exit_record(exit_code=0, **content), NOW) is NOTHING


def test_job_that_could_not_claim_leaves_the_work_to_another() -> None:
    """Its node's disk was full; the other job of the key may do better."""
    waiting = worker()
    gave_up = exit_record(outcome="not_started", exit_code=75, reason="disk full")
    assert node_evidence.observe_exit(waiting, gave_up, NOW, others_live=True) is NOTHING
    assert node_evidence.observe_exit(waiting, gave_up, NOW).phase is Phase.ENDED


@pytest.mark.parametrize(
    ("changes", "of_record", "is_fault"),
    [
        ({}, {"cancelled_by": 0}, True),
        ({}, {"cancelled_by": 1000}, False),
        ({"terminate_at": NOW}, {"cancelled_by": 0}, False),
        ({}, {"cancelled_by": 0, "nodes": ""}, False),
        (RUNNING, {"cancelled_by": 0}, False),
    ],
)
def test_job_that_a_node_cancels_at_once_is_a_node_fault(
    changes: dict[str, Any], of_record: dict[str, Any], is_fault: bool
) -> None:
    """A Prolog that fails ends in a cancellation by uid 0, of a job that never ran."""
    values = {"nodes": "c1"} | of_record
    found = record(JobState.CANCELLED, **values)
    outcome = observed(worker(**changes), found).worker["outcome"]
    assert outcome is (JobState.LAUNCH_FAILED if is_fault else JobState.CANCELLED)


@pytest.mark.parametrize(
    ("state", "number"),
    [(JobState.NODE_FAIL, None), (JobState.COMPLETED, None), (JobState.FAILED, 53)],
)
@pytest.mark.parametrize(
    ("changes", "is_launch_failure"),
    [
        ({}, True),
        ({"kind": WorkerKind.STEP}, True),
        ({"kind": WorkerKind.STEP, "is_claimed": True}, False),
        ({"is_claimed": True}, False),
        ({"terminate_at": NOW}, False),
        ({"kind": WorkerKind.CODE_SERVER}, False),
    ],
)
def test_job_that_never_claimed_its_work_was_not_started(
    changes: dict[str, Any], is_launch_failure: bool, state: JobState, number: int | None
) -> None:
    """Its node died first, took it for a second copy, or found no place for its output.

    The run may be submitted once more.
    """
    outcome = observed(worker(**changes), record(state, signal=number)).worker["outcome"]
    assert outcome is (JobState.LAUNCH_FAILED if is_launch_failure else state)


def test_job_that_fails_before_it_claims_its_work_has_failed() -> None:
    """A script of the site that ends with an error is not tried again for ever."""
    for number in (None, 9):
        outcome = observed(worker(), record(JobState.FAILED, signal=number)).worker["outcome"]
        assert outcome is JobState.FAILED


def test_job_that_its_node_gave_back_and_nobody_releases_is_over() -> None:
    """With ``--requeue``, Slurm holds a job whose Prolog failed until somebody releases it."""
    held = record(JobState.PENDING, reason="launch failed requeued held", restarts=1)
    change = observed(worker(nodes="c1"), held)
    assert (change.phase, change.worker["outcome"]) == (Phase.ENDED, JobState.LAUNCH_FAILED)
    assert change.job["nodes"] == "c1"
    assert observed(worker(**RUNNING), held).phase is Phase.QUEUED


def test_pending_is_told_with_reason_and_start() -> None:
    """The words are those that a user reads in the UI."""
    waiting = worker()
    change = observed(
        waiting,
        record(
            JobState.PENDING,
            reason="Priority",
            expected_start=datetime(2026, 1, 2, 14, 3, tzinfo=UTC),
        ),
    )
    assert describe(after(waiting, change)) == (
        "job 7, PENDING (Priority: jobs of higher priority come first), "
        "expected to start 2026-01-02 14:03 UTC"
    )


def test_end_comes_with_advice() -> None:
    """What happened, and what to do."""
    out_of_memory = worker(phase=Phase.ENDED, state=JobState.OUT_OF_MEMORY)
    assert "raise dagster-hpc/mem" in describe_end(out_of_memory)
    failed = worker(phase=Phase.ENDED, state=JobState.FAILED, exit_code=1, message="ImportError: x")
    assert describe_end(failed) == "FAILED (exit code 1)"
    assert describe(failed).endswith("FAILED (exit code 1)\nImportError: x")


def test_job_that_told_its_end_is_leaving_until_slurm_says_how() -> None:
    """Slurm sees it run for a moment longer; a requeue ends the wait as well."""
    running = worker(**RUNNING)
    leaving = after(running, node_evidence.observe_leaving(running))
    assert leaving.state is JobState.COMPLETING
    assert observed(leaving, record(JobState.RUNNING)) is NOTHING
    assert observed(leaving, record(JobState.PREEMPTED)).phase is Phase.ENDED
    assert observed(leaving, record(JobState.PENDING)).phase is Phase.QUEUED


def test_job_that_ended_on_the_walltime_warning_ran_out_of_time() -> None:
    """Slurm calls it FAILED, since it ended before its limit."""
    warned = exit_record(outcome="terminated", exit_code=1, ended_on="SIGUSR1")
    running = worker(**RUNNING)
    assert node_evidence.observe_exit(running, warned, NOW).worker["outcome"] is JobState.TIMEOUT
    asked = replace(running, terminate_at=NOW)
    assert node_evidence.observe_exit(asked, warned, NOW).worker["outcome"] is JobState.CANCELLED
