"""The last word on a worker that is over: who tells the run, who answers the request, what ends.

A run that the agent has taken never ends in silence, whichever attempt it is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hpc_agent.dagster_plus.agent_calls import FINISHED_STATUSES
from hpc_agent.jobs.wording import describe_end
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker

FINISHED = frozenset(FINISHED_STATUSES)


class RunEnd(enum.Enum):
    """What the agent has to say about a run whose worker is over."""

    NOTHING = "nothing"
    CANCELED = "canceled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWord:
    """What is said of a worker that is over.

    ``failure`` answers the request that still waits, None with success. ``run_end`` is what the
    run's log is told, in the words of ``message``.
    """

    run_end: RunEnd
    failure: str | None = None
    message: str = ""


def needs_status(worker: Worker, *, is_request_open: bool) -> bool:
    """Whether the run's status must be known before the last word can be said."""
    return not (worker.phase is Phase.REFUSED and is_request_open)


def last_word(worker: Worker, *, is_request_open: bool, run_status: str | None) -> LastWord:
    """Say the last word on a run worker by its final phase, the one place that does.

    ``run_status`` is that of the control plane, None when the run was deleted.

    REFUSED: the request that is still open is failed in the scheduler's words, which fails the run;
    where it was answered before, as that of a later attempt was, the run itself is told FAILED.
    WITHDRAWN: the request is answered with success, the run is told CANCELED.
    ENDED, LOST: the same, but FAILED where nobody had asked it to end.

    A run that has finished, or was deleted, is told nothing. The jobs that are left of a worker
    that is over are cancelled in any case (agent/cancel.py).
    """
    refusal = worker.message or "the scheduler refused the job"
    if worker.phase is Phase.REFUSED and is_request_open:
        return LastWord(run_end=RunEnd.NOTHING, failure=refusal)
    if run_status is None or run_status in FINISHED:
        return LastWord(run_end=RunEnd.NOTHING)
    if worker.terminate_at is not None or run_status == "CANCELING":
        return LastWord(run_end=RunEnd.CANCELED, message="Run canceled.")
    return LastWord(run_end=RunEnd.FAILED, message=failure_message(worker))


def failure_message(worker: Worker, no_more: str = "") -> str:
    """Return the message with which a run fails that its run worker left open.

    ``no_more`` says why there is no further attempt, where the policy wanted one.
    """
    message = _failure(worker)
    return f"{message}; {no_more}" if no_more else message


def _failure(worker: Worker) -> str:
    end = describe_end(worker)
    if worker.phase is Phase.REFUSED:
        attempt = f"attempt {worker.attempt}" if worker.attempt > 1 else "the job"
        return f"Slurm refused {attempt} of the run: {worker.message}"
    name = f"Job {worker.job_id}" if worker.job_id else "The job"
    if worker.state is JobState.COMPLETED:
        return f"{name} ended without finishing the run: {worker.message or end}"
    return f"{name} did not finish the run: {end}"
