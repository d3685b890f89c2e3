"""How the run workers stand, as the agent's heartbeat carries it."""

from __future__ import annotations

from collections.abc import Iterable

from hpc_agent.dagster_plus.serdes import Packed, packed, packed_enum
from hpc_agent.jobs.wording import describe
from hpc_agent.store.jobs import Job


def worker_statuses(workers: Iterable[Job], deployment: str) -> Packed:
    """Return CloudRunWorkerStatuses of the runs whose jobs are not over.

    A job that waits in the queue is a healthy worker: whoever takes it for dead would fail a run
    that then executes all the same (dagster #29101).
    """
    return packed(
        "CloudRunWorkerStatuses",
        statuses=[_status(job) for job in workers if job.deployment == deployment],
        run_worker_monitoring_supported=True,
        run_worker_monitoring_thread_alive=True,
    )


def _status(job: Job) -> Packed:
    return packed(
        "CloudRunWorkerStatus",
        run_id=job.run_id,
        status_type=packed_enum("WorkerStatus", "RUNNING"),
        message=describe(job),
        transient=False,
        run_worker_id=job.job_id,
    )
