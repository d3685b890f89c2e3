"""What changes in a worker on its way to the scheduler: pure functions."""

from __future__ import annotations

from typing import Any

from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker
from hpc_agent.workers.change import NOTHING, Change, differing

_NOT_SUBMITTED = frozenset({Phase.INTENT, Phase.SUBMITTING})


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
    back = given_back(worker, now)
    return Change(
        phase=back.phase,
        worker={**back.worker, "waits_for": reason, "not_before": not_before},
    )


def refuse(worker: Worker, message: str, now: float) -> Change:
    """Say what it changes that the scheduler does not want the job."""
    if worker.phase not in _NOT_SUBMITTED:
        return NOTHING
    return Change(phase=Phase.REFUSED, worker={"message": message, "ended_at": now})


def submit_again(worker: Worker, now: float) -> Change:
    """Say what it changes that a submission is known to have made no job."""
    return given_back(worker, now) if worker.phase is Phase.SUBMITTING else NOTHING


def doubt(worker: Worker, reason: str, since: float | None) -> Change:
    """Say what it changes that it is not known, since then, whether sbatch has made a job."""
    if worker.phase is not Phase.SUBMITTING:
        return NOTHING
    changes = differing(worker, {"waits_for": reason, "submitting_since": since})
    return Change(worker=changes) if changes else NOTHING


def withdraw(worker: Worker, now: float, *, terminate_at: float) -> Change:
    """Say what it changes that a worker is asked to end."""
    changes = {"terminate_at": terminate_at}
    if worker.phase is Phase.INTENT:
        return Change(phase=Phase.WITHDRAWN, worker={**changes, "ended_at": now})
    return Change(worker=changes)


def given_back(worker: Worker, now: float) -> Change:
    """One that was asked to end meanwhile needs no second try."""
    changes: dict[str, Any] = {"array_key": None, "array_index": None}
    if worker.terminate_at is not None:
        return Change(phase=Phase.WITHDRAWN, worker=changes | {"ended_at": now})
    return Change(phase=Phase.INTENT, worker=changes)
