"""What metrics are told of a change."""

from __future__ import annotations

from hpc_agent.metrics.agent import JOB_QUEUE_SECONDS, JOB_RUN_SECONDS, JOBS_ENDED
from hpc_agent.metrics.meter import Meter
from hpc_agent.store.workers import Worker


def measure(meter: Meter, before: Worker, after: Worker) -> None:
    """Observe a start and an end. A transaction that is rolled back is counted all the same."""
    labels = after.kind.value, after.location or ""
    if before.started_at is None and after.started_at is not None:
        meter.observe(JOB_QUEUE_SECONDS, max(after.started_at - after.created_at, 0.0), *labels)
    if after.phase.is_final and not before.phase.is_final:
        outcome = after.outcome.value if after.outcome is not None else after.phase.name
        meter.count(JOBS_ENDED, *labels, outcome)
        if after.started_at is not None and after.ended_at is not None:
            meter.observe(JOB_RUN_SECONDS, max(after.ended_at - after.started_at, 0.0), *labels)
