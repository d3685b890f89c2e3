"""What an observation changes in a worker and its jobs: pure functions from evidence to changes.

The job that holds the claim is the worker's job; any other one of the same key is a duplicate and
ends nothing. Evidence counts in this order: claim and start report, exit record, accounting,
controller, absence. A worker ends only on positive evidence. Absence and errors change no phase;
only ``absence`` below, which its caller may use under a scheduler alone that answers, can turn a
long absence into an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hpc_agent.jobs.exit_record import ExitRecord
from hpc_agent.slurm.scheduler import JobRecord, is_called
from hpc_agent.slurm.state import JobState
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.submissions import key_of
from hpc_agent.store.workers import Worker
from hpc_agent.workers.change import NO_POSITION, NOTHING, Change, differing
from hpc_agent.workers.intents import given_back

# A controller writes whole seconds, and its clock may differ a little from the agent's.
_SAME_SUBMISSION_SECONDS = 120.0
# An allocation may well end so while what lived in it was killed with its supervisor.
_SAYS_NOTHING_OF_MEMBERS = frozenset({None, JobState.COMPLETED, JobState.FAILED})
# What slurmstepd ends a batch job with whose output it cannot open: "0:53" in sacct.
_NO_OUTPUT = 53


def belongs(record: JobRecord, worker: Worker, job: Job) -> bool:
    """Whether a record is of this job: ids are reused after a controller loses its state.

    Name, comment, script or working directory tell. Where a site's plugin has rewritten all that
    can be seen, the submit time does; it changes only when Slurm requeues a job.
    """
    if is_called(record, key_of(worker)):
        return True
    if job.name and record.name == job.name and (_is_ours(record) or record.restarts > 0):
        return True
    if record.submit_time is None:
        return False
    submitted = record.submit_time.timestamp()
    if job.submit_time is not None:
        return submitted == job.submit_time
    return not _is_ours(record) and abs(submitted - job.submitted_at) < _SAME_SUBMISSION_SECONDS


def observe_record(
    worker: Worker, job: Job, record: JobRecord, now: float, *, others_live: bool = False
) -> Change:
    """Say what a scheduler's record changes.

    ``others_live``: the worker has further jobs that are not over.
    """
    told_its_end = record.state is JobState.RUNNING and job.state is JobState.COMPLETING
    if record.state is JobState.UNKNOWN or told_its_end:
        # The node program has told its end; Slurm sees it a moment later.
        return NOTHING
    is_final = record.state.is_final
    seen = differing(job, _of_final(job, record, now) if is_final else _of_live(job, record))
    is_current = worker.job is None or worker.job.id == job.id
    counts = not worker.phase.is_final and (is_current or not worker.is_claimed)
    if is_final and counts and (worker.is_claimed or not others_live):
        return Change(
            phase=Phase.ENDED,
            worker=differing(worker, _end_of(worker, record, now)),
            job_id=job.job_id,
            job=seen,
            is_current=not is_current,
        )
    if is_held_by_its_node(worker, record) and counts and is_current:
        end = {"outcome": JobState.LAUNCH_FAILED, "ended_at": now, "waits_for": ""}
        return Change(
            phase=Phase.ENDED, worker=end, job_id=job.job_id, job={**seen, "nodes": job.nodes}
        )
    if not is_final and counts and (is_current or _is_further(worker, record)):
        return _goes_on(worker, job, record, seen, now)
    return _seen(job, seen)


def _is_further(worker: Worker, record: JobRecord) -> bool:
    """Whether a job has come further than the one that has counted so far."""
    return not record.state.is_waiting and worker.phase is not Phase.RUNNING


def _goes_on(
    worker: Worker, job: Job, record: JobRecord, seen: Mapping[str, Any], now: float
) -> Change:
    waits = record.state.is_waiting
    started = None if waits else worker.started_at or _started(record) or now
    phase = Phase.QUEUED if waits else Phase.RUNNING
    changes = differing(worker, {"started_at": started, "waits_for": ""})
    is_current = worker.job is not None and worker.job.id == job.id
    if phase is worker.phase and not seen and not changes and is_current:
        return NOTHING
    return Change(
        phase=phase, worker=changes, job_id=job.job_id, job=seen, is_current=not is_current
    )


def was_cancelled_without_trace(worker: Worker, job: Job) -> bool:
    """Whether the absence of a job is what its cancellation must look like.

    Slurm (22.05) keeps nothing of a task that is cancelled while its array waits: neither the
    controller nor the accounting has a record of it.
    """
    return "_" in job.job_id and job.cancelled_at is not None and worker.started_at is None


def absence(
    worker: Worker,
    job: Job,
    now: float,
    *,
    seconds: float,
    lost_after_seconds: float,
    others_live: bool = False,
) -> Change:
    """Say what it changes that a healthy controller and the accounting do not know a job.

    ``seconds`` have passed since the last look that said so, under a scheduler that answered: what
    passes while it, or the agent, is away does not count.
    """
    counts = worker.job is None or worker.job.id == job.id or not worker.is_claimed
    if worker.phase.is_final or not counts:
        return Change(job_id=job.job_id, job={"is_over": True})
    if was_cancelled_without_trace(worker, job) and worker.terminate_at is not None:
        return Change(
            phase=Phase.ENDED,
            worker={"outcome": JobState.CANCELLED, "ended_at": now},
            job_id=job.job_id,
            job={"is_over": True, "reason": ""},
        )
    absent = job.absent_seconds + seconds
    if absent < lost_after_seconds or seconds == 0.0:
        return Change(job_id=job.job_id, job={"absent_seconds": max(absent, 1e-3)})
    if others_live:
        return Change(job_id=job.job_id, job={"is_over": True})
    if not worker.is_claimed and worker.started_at is None:
        return _vanished(worker, job, now)
    return Change(
        phase=Phase.LOST,
        worker={
            "ended_at": now,
            "message": (
                f"the scheduler has not known job {job.job_id} for {absent:.0f} s and it "
                "left no exit record"
            ),
        },
        job_id=job.job_id,
        job={"is_over": True},
    )


def _vanished(worker: Worker, job: Job, now: float) -> Change:
    """The scheduler lost a job that had not started: the claim lets one more be no danger."""
    back = given_back(worker, now)
    words = f"Slurm has lost job {job.job_id} before it started; it is submitted again"
    return Change(
        phase=back.phase,
        worker={**back.worker, "waits_for": words},
        job_id=job.job_id,
        job={"is_over": True},
    )


def observe_pack(worker: Worker, pack: Worker, now: float) -> Change:
    """Say what the state of a pack changes in a worker that lives in it.

    The pack's start is not the worker's own, which it tells itself; the pack's end is.
    """
    if worker.phase.is_final:
        return NOTHING
    phase = pack.phase
    if phase is Phase.SUBMITTING or (phase is Phase.INTENT and worker.phase.is_submitted):
        phase = Phase.QUEUED if worker.phase.is_submitted else Phase.INTENT
    changes: dict[str, Any] = {"waits_for": pack.waits_for}
    if phase is Phase.RUNNING:
        changes["started_at"] = worker.started_at or now
    elif phase.is_final:
        changes |= {
            "ended_at": pack.ended_at or now,
            "message": pack.message,
            "outcome": pack.outcome,
        }
    news = differing(worker, changes)
    return Change(phase=phase, worker=news) if news or phase is not worker.phase else NOTHING


def observe_allocation(member: Worker, allocation: Worker, now: float) -> Change:
    """Say what the end of an allocation changes in a run or step that lives in it.

    What has not begun waits for another slot; what had ends as the allocation did. Where that is
    no word on what became of it, it is the supervisor or its node that has failed.
    """
    if member.phase.is_final or not allocation.phase.is_final:
        return NOTHING
    if not member.is_claimed:
        return assigned_to_none(member, now, f"allocation {allocation.key} ended before it began")
    name = f"its pool's allocation {allocation.key}"
    if allocation.phase is Phase.LOST:
        changes = {"ended_at": now, "message": f"{name}: {allocation.message}"}
        return Change(phase=Phase.LOST, worker=changes)
    outcome = allocation.outcome
    if outcome in _SAYS_NOTHING_OF_MEMBERS:
        outcome = JobState.NODE_FAIL
    return Change(
        phase=Phase.ENDED,
        worker={
            "outcome": outcome,
            "ended_at": allocation.ended_at or now,
            "message": f"{name} ended ({allocation.state.value}), and it left no exit record",
        },
    )


def assigned_to_none(member: Worker, now: float, words: str) -> Change:
    """Say what it changes that a member has not begun in its allocation and is not to any more."""
    back = given_back(member, now)
    changes = {"pack_key": None, "pool_node": None, "current_job": None, "waits_for": words}
    return Change(phase=back.phase, worker={**back.worker, **changes})


def observe_gone(member: Worker, record: ExitRecord | None, now: float) -> Change:
    """Say what it changes that the supervisor of an allocation has no process of a member.

    ``record`` is what it has left behind, as far as that does not say how it ended.

    One that has claimed its work, and was gone before it told its start, has begun nothing of it.
    """
    if member.phase.is_final or not member.is_claimed or member.pack_key is None:
        return NOTHING
    words = f"its process in allocation {member.pack_key}"
    if record is None:
        words += " is gone, and it left no exit record"
    else:
        words += f" was ended by {record.ended_on or 'a signal'}, and nobody says why"
    return Change(
        phase=Phase.ENDED,
        worker={
            "outcome": JobState.LAUNCH_FAILED if member.started_at is None else JobState.FAILED,
            "ended_at": now,
            "message": words,
        },
    )


def _seen(job: Job, seen: Mapping[str, Any]) -> Change:
    return Change(job_id=job.job_id, job=seen) if seen else NOTHING


def _of_live(job: Job, record: JobRecord) -> dict[str, Any]:
    waits = record.state.is_waiting
    changes: dict[str, Any] = {
        "submit_time": _timestamp(record.submit_time) or job.submit_time,
        "name": record.name or job.name,
        "state": record.state,
        "reason": record.reason if waits else "",
        "partition": record.partition or job.partition,
        "deadline_at": _deadline(record) or job.deadline_at,
        "absent_seconds": 0.0,
        "expected_start": _timestamp(record.expected_start) if waits else None,
        "nodes": "" if waits else record.nodes or job.nodes,
        "started_at": None if waits else job.started_at or _started(record),
    }
    return changes if waits else {**changes, **NO_POSITION}


def _of_final(job: Job, record: JobRecord, now: float) -> dict[str, Any]:
    return {
        "submit_time": _timestamp(record.submit_time) or job.submit_time,
        "name": record.name or job.name,
        "state": record.state,
        "reason": record.reason if record.reason != "None" else "",
        "nodes": record.nodes or job.nodes,
        "partition": record.partition or job.partition,
        "started_at": job.started_at or _started(record),
        "ended_at": _timestamp(record.end_time) or now,
        "exit_code": record.exit_code,
        "signal": record.signal,
        "absent_seconds": 0.0,
        "expected_start": None,
        "is_over": True,
        **NO_POSITION,
    }


def _end_of(worker: Worker, record: JobRecord, now: float) -> dict[str, Any]:
    changes = {
        "outcome": record.state,
        "started_at": worker.started_at or _started(record),
        "ended_at": _timestamp(record.end_time) or now,
        "exit_code": record.exit_code,
        "signal": record.signal,
        "waits_for": "",
    }
    if is_node_fault(worker, record) or _was_never_begun(worker, record):
        changes["outcome"] = JobState.LAUNCH_FAILED
    return changes


def _was_never_begun(worker: Worker, record: JobRecord) -> bool:
    """Whether a run's or step's job is over, by nobody's wish, without having claimed its work.

    Its node died first, or refused it: slurmd launches no second job with the id of one that is
    still there, as after a controller lost its state, and Slurm counts it as COMPLETED. Where the
    script's output or directory cannot be opened on the node, Slurm counts it as FAILED by signal
    53. Nothing of a run begins before the agent knows of the claim.
    """
    is_unbegun = record.state in {JobState.NODE_FAIL, JobState.COMPLETED} or (
        record.state is JobState.FAILED and record.signal == _NO_OUTPUT
    )
    return (
        is_unbegun
        and worker.kind.is_of_run
        and not worker.is_claimed
        and worker.terminate_at is None
    )


def is_node_fault(worker: Worker, record: JobRecord) -> bool:
    """Whether the node, and no person, has cancelled a job before anything of it ran.

    When a Prolog fails, slurmd asks for a requeue, which ``--no-requeue`` turns into a cancellation
    by uid 0 (docs/job-states.md). Only accounting says by whom.
    """
    return may_be_node_fault(worker, record) and record.cancelled_by == 0


def may_be_node_fault(worker: Worker, record: JobRecord) -> bool:
    """Whether it takes the word of accounting to know who has cancelled a job."""
    return (
        record.state is JobState.CANCELLED
        and worker.terminate_at is None
        and not worker.is_claimed
        and record.nodes != ""
    )


def is_held_by_its_node(worker: Worker, record: JobRecord) -> bool:
    """Whether a job is held after its node could not start it, until somebody releases it."""
    reason = record.reason.lower().replace(" ", "_")
    return (
        record.state.is_waiting
        and reason.startswith("launch_failed_requeued_held")
        and worker.terminate_at is None
        and not worker.is_claimed
    )


def _is_ours(record: JobRecord) -> bool:
    return record.name.startswith("hpc-agent:")


def _deadline(record: JobRecord) -> float | None:
    if record.start_time is None or record.time_limit_seconds is None:
        return None
    return record.start_time.timestamp() + record.time_limit_seconds


def _started(record: JobRecord) -> float | None:
    return _timestamp(record.start_time)


def _timestamp(time: datetime | None) -> float | None:
    return time.timestamp() if time else None
