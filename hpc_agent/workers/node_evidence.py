"""What the node program's own words change in a worker: pure functions from reports and records.

They are the first evidence there is, and user code can forge all of it: so they end nothing but the
worker whose token and directory they come with.
"""

from __future__ import annotations

from hpc_agent.jobs.exit_record import ExitRecord
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, Worker
from hpc_agent.workers.change import NO_POSITION, NOTHING, Change, differing

_CANNOT_START = 127  # EX_CANNOT_START of the node program


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
        worker=differing(
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
            **NO_POSITION,
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
    if _ends_with_allocation(worker, record):
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


def _ends_with_allocation(worker: Worker, record: ExitRecord) -> bool:
    """Whether only the end of its allocation says why one that lives in a pool was ended."""
    return (
        worker.placement is Placement.POOL
        and record.outcome == "terminated"
        and worker.terminate_at is None
        and not record.is_out_of_time
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
    # What could not be started has printed nothing.
    return record.stderr_tail or (record.reason if record.exit_code == _CANNOT_START else "")


def _outcome(worker: Worker, record: ExitRecord) -> JobState:
    if record.outcome == "out_of_memory":
        return JobState.OUT_OF_MEMORY
    if worker.terminate_at is not None and record.outcome == "terminated":
        return JobState.CANCELLED
    if record.is_out_of_time and worker.terminate_at is None:
        return JobState.TIMEOUT
    return JobState.COMPLETED if record.exit_code == 0 else JobState.FAILED
