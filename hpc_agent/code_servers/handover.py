"""Hand-over: when a code server needs a successor because the time limit of its job comes near."""

from __future__ import annotations

from hpc_agent.store.code_servers import CodeServer
from hpc_agent.store.workers import Worker

_SAFETY_SECONDS = 30.0


def is_due(
    server: CodeServer,
    worker: Worker,
    *,
    now: float,
    drain_seconds: float,
    handover_seconds: float | None,
) -> bool:
    """Whether a successor must be submitted now; False as long as no deadline is known.

    Without ``handover_seconds`` the server's own time in the queue and to its first answer, twice,
    is taken for its successor's.
    """
    if worker.started_at is None or worker.deadline_at is None:
        return False
    margin = handover_seconds
    if margin is None:
        asked_at = worker.submitted_at or worker.created_at
        way_up = max((server.ready_at or worker.started_at) - asked_at, 0.0)
        margin = 2 * way_up + drain_seconds + _SAFETY_SECONDS
    # Half of its life at most, or servers of a short limit would do nothing but hand over.
    margin = min(margin, (worker.deadline_at - worker.started_at) / 2)
    return now >= worker.deadline_at - margin
