"""What an observation changes in a job: pure functions from evidence to changes.

A job ends only on positive evidence: a final state from the scheduler, or the node program's exit
record. Absence and errors change no phase; only ``absence`` below, which its caller may use under a
healthy controller alone, can turn a long absence into LOST.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store.jobs import Job, Phase

Changes = Mapping[str, Any]
NO_CHANGES: Changes = {}
_NO_POSITION: Changes = {"position": None, "position_among": None, "position_partition": ""}
_NOT_SUBMITTED = frozenset({Phase.INTENT, Phase.SUBMITTING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What Slurm gave a job, as its environment said; None where it did not."""

    cpus: int | None
    nodes: int | None
    memory_bytes: int | None
    gpus: int | None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Allocation:
        """Read ``allocation`` of an exit record."""
        megabytes = _integer(content.get("memory_mb"))
        return cls(
            cpus=_integer(content.get("cpus")),
            nodes=_integer(content.get("nodes")),
            memory_bytes=None if megabytes is None else megabytes << 20,
            gpus=_integer(content.get("gpus")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """The node program's last word (``exit.json``)."""

    outcome: str
    reason: str
    exit_code: int | None
    signal: int | None
    started_at: float | None
    ended_at: float
    hostname: str
    stderr_tail: str
    ended_on: str | None = None
    cpu_seconds: float | None = None
    max_rss_kb: int | None = None
    allocation: Allocation | None = None

    @property
    def is_out_of_time(self) -> bool:
        """Whether it ended on the warning before its time limit (``sbatch --signal=B:USR1@N``).

        Slurm sees such a job exit by itself before the limit, and calls it FAILED.
        """
        return self.ended_on == "SIGUSR1"

    @property
    def ran(self) -> bool:
        """Whether the child was started at all."""
        return self.outcome in {"exited", "terminated", "out_of_memory"}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ExitRecord:
        """Read an exit record; missing fields are taken as unknown."""
        return cls(
            outcome=str(content.get("outcome") or "exited"),
            reason=str(content.get("reason") or ""),
            exit_code=_integer(content.get("exit_code")),
            signal=_integer(content.get("signal")),
            started_at=_number(content.get("started_at")),
            ended_at=_number(content.get("ended_at")) or 0.0,
            hostname=str(content.get("hostname") or ""),
            stderr_tail=str(content.get("stderr_tail") or ""),
            ended_on=content.get("ended_on"),
            cpu_seconds=_number(content.get("cpu_seconds")),
            max_rss_kb=_integer(content.get("max_rss_kb")),
            allocation=Allocation.from_json(content.get("allocation") or {}),
        )


def observe_submission(job: Job, job_id: str, now: float) -> Changes:
    """Return what it changes that the scheduler has the job; it may have started already."""
    if job.phase.is_final or job.job_id is not None:
        return NO_CHANGES
    changes: dict[str, Any] = {"job_id": job_id, "submitted_at": now}
    if not job.phase.is_submitted:
        changes |= {"phase": Phase.QUEUED, "state": JobState.PENDING, "reason": ""}
    return changes


def hold_back(job: Job, reason: str, *, now: float, not_before: float) -> Changes:
    """Return what it changes that the scheduler takes no job at the moment."""
    if job.phase not in _NOT_SUBMITTED:
        return NO_CHANGES
    return {**_given_back(job, now), "reason": reason, "not_before": not_before}


def refuse(job: Job, message: str, now: float) -> Changes:
    """Return what it changes that the scheduler does not want the job."""
    if job.phase not in _NOT_SUBMITTED:
        return NO_CHANGES
    return {"phase": Phase.REFUSED, "message": message, "ended_at": now}


def submit_again(job: Job, now: float) -> Changes:
    """Return what it changes that a submission is known to have made no job."""
    return _given_back(job, now) if job.phase is Phase.SUBMITTING else NO_CHANGES


def _given_back(job: Job, now: float) -> Changes:
    """A job that was asked to end meanwhile needs no second try."""
    changes: dict[str, Any] = {"phase": Phase.INTENT, "array_key": None, "array_index": None}
    if job.terminate_at is not None:
        changes |= {"phase": Phase.WITHDRAWN, "ended_at": now}
    return changes


def observe_record(job: Job, record: JobRecord, now: float) -> Changes:
    """Return what a scheduler's record changes in a job."""
    if job.phase.is_final or record.state is JobState.UNKNOWN:
        return NO_CHANGES
    if record.state.is_final:
        return _ended(job, record, now)
    if record.state is JobState.RUNNING and job.state is JobState.COMPLETING:
        # The node program has told its end; Slurm sees it a moment later.
        return NO_CHANGES
    changes: dict[str, Any] = {
        "state": record.state,
        "reason": record.reason if record.state.is_waiting else "",
        "partition": record.partition or job.partition,
        "deadline_at": _deadline(record) or job.deadline_at,
        "absent_since": None,
        "expected_start": _timestamp(record.expected_start) if record.state.is_waiting else None,
    }
    if record.state.is_waiting:
        changes |= {"phase": Phase.QUEUED, "nodes": "", "started_at": None}
    else:
        changes |= {
            **_NO_POSITION,
            "phase": Phase.RUNNING,
            "nodes": record.nodes or job.nodes,
            "started_at": job.started_at or _timestamp(record.start_time) or now,
        }
    return _differing(job, changes)


def observe_start(
    job: Job, hostname: str, job_id: str, now: float, *, restart_count: int = 0
) -> Changes:
    """Return what the node program's own report changes.

    The first one is the best there is to know of the start: Slurm tells it in whole seconds. It may
    come before sbatch has told the job's id.
    """
    if job.phase.is_final:
        return NO_CHANGES
    whole = job.started_at is not None and job.started_at.is_integer()
    changes: dict[str, Any] = {
        "phase": Phase.RUNNING,
        "state": JobState.RUNNING,
        "reason": "",
        "nodes": job.nodes or hostname,
        "started_at": now if job.phase is not Phase.RUNNING or whole else job.started_at,
        "absent_since": None,
        "expected_start": None,
        **_NO_POSITION,
        "restart_count": max(job.restart_count, restart_count),
    }
    if job.job_id is None and job_id:
        changes |= {"job_id": job_id, "submitted_at": job.submitting_since or now}
    return _differing(job, changes)


def observe_leaving(job: Job) -> Changes:
    """Return what it changes that a job is on its way out, and only the scheduler knows why."""
    return {"state": JobState.COMPLETING} if job.phase is Phase.RUNNING else NO_CHANGES


def observe_exit(job: Job, exit_record: ExitRecord, now: float) -> Changes:
    """Return what an exit record changes."""
    if job.phase.is_final:
        return NO_CHANGES
    return {
        "phase": Phase.ENDED,
        "state": _state_of(job, exit_record),
        "reason": "",
        "nodes": job.nodes or exit_record.hostname,
        "started_at": job.started_at or exit_record.started_at,
        "ended_at": exit_record.ended_at or now,
        "exit_code": exit_record.exit_code,
        "signal": exit_record.signal,
        "cpu_seconds": exit_record.cpu_seconds,
        "max_rss_kb": exit_record.max_rss_kb or None,
        "message": _message(exit_record),
    }


def _message(exit_record: ExitRecord) -> str:
    if exit_record.outcome == "out_of_memory" or not exit_record.ran:
        return exit_record.reason
    return exit_record.stderr_tail


def _state_of(job: Job, exit_record: ExitRecord) -> JobState:
    if exit_record.outcome == "out_of_memory":
        return JobState.OUT_OF_MEMORY
    if job.terminate_at is not None and exit_record.outcome == "terminated":
        return JobState.CANCELLED
    if exit_record.is_out_of_time and job.terminate_at is None:
        return JobState.TIMEOUT
    return JobState.COMPLETED if exit_record.exit_code == 0 else JobState.FAILED


def was_cancelled_without_trace(job: Job) -> bool:
    """Whether the absence of a job is what its cancellation must look like.

    Slurm (22.05) keeps nothing of a task that is cancelled while its array waits: neither the
    controller nor the accounting has a record of it.
    """
    is_task = job.array_index is not None
    return is_task and job.cancelled_at is not None and job.started_at is None


def absence(job: Job, now: float, lost_after_seconds: float) -> Changes:
    """Return what it changes that a healthy controller and the accounting do not know a job."""
    if was_cancelled_without_trace(job):
        return {"phase": Phase.ENDED, "state": JobState.CANCELLED, "reason": "", "ended_at": now}
    if job.absent_since is None:
        return {"absent_since": now}
    if now - job.absent_since < lost_after_seconds:
        return NO_CHANGES
    return {
        "phase": Phase.LOST,
        "ended_at": now,
        "message": (
            f"the scheduler has not known job {job.job_id} for {lost_after_seconds:.0f} s and it "
            "left no exit record"
        ),
    }


def _ended(job: Job, record: JobRecord, now: float) -> Changes:
    return {
        "phase": Phase.ENDED,
        "state": record.state,
        "reason": record.reason if record.reason != "None" else "",
        "nodes": record.nodes or job.nodes,
        "partition": record.partition or job.partition,
        "started_at": job.started_at or _timestamp(record.start_time),
        "ended_at": _timestamp(record.end_time) or now,
        "exit_code": record.exit_code,
        "signal": record.signal,
        "absent_since": None,
        "expected_start": None,
    }


def observe_pack(job: Job, pack: Job, now: float) -> Changes:
    """Return what the state of a pack changes in a job that lives in it.

    The pack's start is not the job's own, which it tells itself; the pack's end is.
    """
    if job.phase.is_final:
        return NO_CHANGES
    changes: dict[str, Any] = {
        "phase": pack.phase,
        "state": pack.state,
        "reason": pack.reason,
        "partition": pack.partition,
        "nodes": pack.nodes,
        "job_id": pack.job_id,
        "submitted_at": job.submitted_at or (now if pack.job_id else None),
        "expected_start": pack.expected_start,
        "deadline_at": pack.deadline_at,
    }
    if pack.phase is Phase.SUBMITTING:
        changes["phase"] = Phase.INTENT
    elif pack.phase is Phase.RUNNING:
        changes["started_at"] = job.started_at or now
    elif pack.phase.is_final:
        changes |= {"ended_at": pack.ended_at, "message": pack.message}
    return _differing(job, changes)


def _deadline(record: JobRecord) -> float | None:
    if record.start_time is None or record.time_limit_seconds is None:
        return None
    return record.start_time.timestamp() + record.time_limit_seconds


def _differing(job: Job, changes: Changes) -> Changes:
    return {name: value for name, value in changes.items() if getattr(job, name) != value}


def _timestamp(time: datetime | None) -> float | None:
    return time.timestamp() if time else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
