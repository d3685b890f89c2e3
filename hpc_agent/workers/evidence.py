"""What an observation changes in a worker and its jobs: pure functions from evidence to changes.

The job that holds the claim is the worker's job; any other one of the same key is a duplicate and
ends nothing. Evidence counts in this order: claim and start report, exit record, accounting,
controller, absence. A worker ends only on positive evidence. Absence and errors change no phase;
only ``absence`` below, which its caller may use under a scheduler alone that answers, can turn a
long absence into an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hpc_agent.jobs.exit_record import ExitRecord
from hpc_agent.slurm.scheduler import JobRecord, is_called
from hpc_agent.slurm.state import JobState
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.submissions import key_of
from hpc_agent.store.workers import Placement, Worker

_NO_POSITION: Mapping[str, Any] = {
    "position": None,
    "position_among": None,
    "position_partition": "",
}
_NOT_SUBMITTED = frozenset({Phase.INTENT, Phase.SUBMITTING})
# A controller writes whole seconds, and its clock may differ a little from the agent's.
_SAME_SUBMISSION_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of a worker, and of one of its jobs.

    ``job_id`` names that job, which is added where it is not known; ``is_current`` makes it the one
    that counts, ``is_claim`` the one that holds the claim.
    """

    phase: Phase | None = None
    worker: Mapping[str, Any] = field(default_factory=dict)
    job_id: str | None = None
    job: Mapping[str, Any] = field(default_factory=dict)
    is_current: bool = False
    is_claim: bool = False


NOTHING = Change()


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


def observe_submission(worker: Worker, job_id: str, now: float) -> Change:
    """Say what it changes that the scheduler has the job; it may have started already."""
    if worker.phase.is_final:
        # It was given up meanwhile: the job becomes known, to be cancelled.
        return Change(job_id=job_id)
    phase = None if worker.phase.is_submitted else Phase.QUEUED
    state = {"state": JobState.PENDING} if worker.job is None else {}
    return Change(
        phase=phase,
        worker={"waits_for": ""},
        job_id=job_id,
        job=state,
        is_current=worker.job is None or worker.job.is_over,
    )


def hold_back(worker: Worker, reason: str, *, now: float, not_before: float) -> Change:
    """Say what it changes that the scheduler takes no job at the moment."""
    if worker.phase not in _NOT_SUBMITTED:
        return NOTHING
    given_back = _given_back(worker, now)
    return Change(
        phase=given_back.phase,
        worker={**given_back.worker, "waits_for": reason, "not_before": not_before},
    )


def refuse(worker: Worker, message: str, now: float) -> Change:
    """Say what it changes that the scheduler does not want the job."""
    if worker.phase not in _NOT_SUBMITTED:
        return NOTHING
    return Change(phase=Phase.REFUSED, worker={"message": message, "ended_at": now})


def submit_again(worker: Worker, now: float) -> Change:
    """Say what it changes that a submission is known to have made no job."""
    return _given_back(worker, now) if worker.phase is Phase.SUBMITTING else NOTHING


def doubt(worker: Worker, reason: str, since: float | None) -> Change:
    """Say what it changes that it is not known, since then, whether sbatch has made a job."""
    if worker.phase is not Phase.SUBMITTING:
        return NOTHING
    changes = _differing(worker, {"waits_for": reason, "submitting_since": since})
    return Change(worker=changes) if changes else NOTHING


def _given_back(worker: Worker, now: float) -> Change:
    """One that was asked to end meanwhile needs no second try."""
    changes: dict[str, Any] = {"array_key": None, "array_index": None}
    if worker.terminate_at is not None:
        return Change(phase=Phase.WITHDRAWN, worker=changes | {"ended_at": now})
    return Change(phase=Phase.INTENT, worker=changes)


def withdraw(worker: Worker, now: float, *, terminate_at: float) -> Change:
    """Say what it changes that a worker is asked to end."""
    changes = {"terminate_at": terminate_at}
    if worker.phase is Phase.INTENT:
        return Change(phase=Phase.WITHDRAWN, worker={**changes, "ended_at": now})
    return Change(worker=changes)


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
    seen = _differing(job, _of_final(job, record, now) if is_final else _of_live(job, record))
    is_current = worker.job is None or worker.job.id == job.id
    counts = not worker.phase.is_final and (is_current or not worker.is_claimed)
    if is_final and counts and (worker.is_claimed or not others_live):
        return Change(
            phase=Phase.ENDED,
            worker=_differing(worker, _end_of(worker, record, now)),
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
    changes = _differing(worker, {"started_at": started, "waits_for": ""})
    is_current = worker.job is not None and worker.job.id == job.id
    if phase is worker.phase and not seen and not changes and is_current:
        return NOTHING
    return Change(
        phase=phase, worker=changes, job_id=job.job_id, job=seen, is_current=not is_current
    )


def observe_start(
    worker: Worker, hostname: str, job_id: str, now: float, *, restart_count: int = 0
) -> Change:
    """Say what the node program's own report changes: it holds the claim.

    The first one is the best there is to know of the start: Slurm tells it in whole seconds. It may
    come before sbatch has told the job's id.
    """
    if worker.phase.is_final:
        return NOTHING
    job = worker.job if worker.job is not None and worker.job.job_id == job_id else None
    whole = worker.started_at is not None and worker.started_at.is_integer()
    is_new = worker.phase is not Phase.RUNNING or not worker.is_claimed
    return Change(
        phase=Phase.RUNNING,
        worker=_differing(
            worker,
            {"started_at": now if is_new or whole else worker.started_at, "waits_for": ""},
        ),
        job_id=None if worker.placement is Placement.PACKED else job_id or worker.job_id,
        job={
            "state": JobState.RUNNING,
            "reason": "",
            "nodes": (job.nodes if job else "") or hostname,
            "started_at": (job.started_at if job else None) or now,
            "absent_seconds": 0.0,
            "expected_start": None,
            **_NO_POSITION,
            "restart_count": max(job.restart_count if job else 0, restart_count),
        },
        is_current=True,
        is_claim=True,
    )


def observe_claim(worker: Worker, job_id: str) -> Change:
    """Say what it changes that a job is known to hold the claim, by the word of another."""
    if worker.phase.is_final or worker.is_claimed or not job_id:
        return NOTHING
    return Change(job_id=job_id, is_current=True, is_claim=True)


def observe_leaving(worker: Worker) -> Change:
    """Say what it changes that a job is on its way out, and only the scheduler knows why."""
    if worker.phase is not Phase.RUNNING or worker.job is None or worker.pack_key is not None:
        return NOTHING
    return Change(job_id=worker.job.job_id, job={"state": JobState.COMPLETING})


def observe_exit(
    worker: Worker, record: ExitRecord, now: float, *, others_live: bool = False
) -> Change:
    """Say what an exit record changes: that of the job which holds the claim.

    A node that could not even claim tells its end as well; as long as another job of the worker may
    do better (``others_live``), that ends nothing.
    """
    if worker.phase.is_final or not is_of(worker, record):
        return NOTHING
    if others_live and not record.ran and not worker.is_claimed:
        return NOTHING
    is_packed = worker.pack_key is not None
    return Change(
        phase=Phase.ENDED,
        worker={
            "outcome": _outcome(worker, record),
            "started_at": worker.started_at or record.started_at,
            "ended_at": record.ended_at or now,
            "exit_code": record.exit_code,
            "signal": record.signal,
            "cpu_seconds": record.cpu_seconds,
            "max_rss_kb": record.max_rss_kb or None,
            "message": _message(record),
            "waits_for": "",
        },
        job_id=None if is_packed else record.slurm_job_id or worker.job_id,
        job={} if is_packed else {"nodes": worker.nodes or record.hostname},
        is_current=not is_packed,
        is_claim=not is_packed,
    )


def is_of(worker: Worker, record: ExitRecord) -> bool:
    """Whether an exit record is the worker's own: of no earlier start, and of no stranger."""
    if record.key and record.key != worker.key:
        return False
    if worker.pack_key is not None or not worker.is_claimed or worker.job is None:
        return True
    if record.slurm_job_id and record.slurm_job_id != worker.job.job_id:
        return False
    return record.restart_count >= worker.job.restart_count


def _message(record: ExitRecord) -> str:
    if record.outcome == "out_of_memory" or not record.ran:
        return record.reason
    return record.stderr_tail


def _outcome(worker: Worker, record: ExitRecord) -> JobState:
    if record.outcome == "out_of_memory":
        return JobState.OUT_OF_MEMORY
    if worker.terminate_at is not None and record.outcome == "terminated":
        return JobState.CANCELLED
    if record.is_out_of_time and worker.terminate_at is None:
        return JobState.TIMEOUT
    return JobState.COMPLETED if record.exit_code == 0 else JobState.FAILED


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
    given_back = _given_back(worker, now)
    words = f"Slurm has lost job {job.job_id} before it started; it is submitted again"
    return Change(
        phase=given_back.phase,
        worker={**given_back.worker, "waits_for": words},
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
    differing = _differing(worker, changes)
    return (
        Change(phase=phase, worker=differing) if differing or phase is not worker.phase else NOTHING
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
    return changes if waits else {**changes, **_NO_POSITION}


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
        **_NO_POSITION,
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
    if is_node_fault(worker, record):
        changes["outcome"] = JobState.LAUNCH_FAILED
    return changes


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


def _differing(record: Worker | Job, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if getattr(record, name) != value}


def _started(record: JobRecord) -> float | None:
    return _timestamp(record.start_time)


def _timestamp(time: datetime | None) -> float | None:
    return time.timestamp() if time else None
