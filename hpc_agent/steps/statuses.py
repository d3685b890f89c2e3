"""How the job of a step stands, as its run is told."""

from __future__ import annotations

from typing import Literal

from hpc_agent.jobs import reasons
from hpc_agent.jobs.wording import describe_end, last_words
from hpc_agent.relay.step_requests import JobName, StepStatus
from hpc_agent.runs.recovery import cause_of
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker

REFUSED = "REFUSED"

_Phase = Literal["waiting", "queued", "running", "ended"]
_PHASES: dict[Phase, _Phase] = {
    Phase.INTENT: "waiting",
    Phase.SUBMITTING: "waiting",
    Phase.QUEUED: "queued",
    Phase.RUNNING: "running",
}
_STATES = {Phase.REFUSED: REFUSED, Phase.WITHDRAWN: "CANCELLED", Phase.LOST: "LOST"}


def status_of(worker: Worker, directory: str) -> StepStatus:
    """Return how a step's job stands; ``directory`` is that of this attempt.

    One that Slurm has ended is running still to its run, until the agent has decided whether there
    is another attempt: that is the agent's to repeat, and no attempt of user code.
    """
    is_decided = worker.concluded_at is not None or cause_of(worker) is None
    phase: _Phase = _PHASES.get(worker.phase, "ended" if is_decided else "running")
    is_over = phase == "ended"
    state = _STATES.get(worker.phase, worker.state.value)
    return StepStatus(
        name=str(worker.step),
        attempt=worker.step_attempt,
        phase=phase,
        job_id=worker.job_id,
        state="" if state == JobState.UNKNOWN.value else state,
        reason=_reason(worker),
        nodes=worker.nodes,
        exit_code=worker.exit_code,
        signal=worker.signal,
        message=_message(worker) if is_over else "",
        directory=directory,
        submitted_at=worker.submitted_at,
        started_at=worker.started_at,
        ended_at=worker.ended_at if is_over else None,
        restarts=worker.attempt - 1 + worker.restart_count,
    )


def refused(job: JobName, words: str) -> StepStatus:
    """Return how a job stands that was not even written down."""
    return StepStatus(
        name=job.name, attempt=job.attempt, phase="ended", state=REFUSED, message=words
    )


def _reason(worker: Worker) -> str:
    words = reasons.in_words(worker.reason) if worker.phase.is_submitted else ""
    return f"{worker.reason}: {words}" if words else worker.reason


def _message(worker: Worker) -> str:
    if worker.phase is Phase.REFUSED:
        return worker.message or "the scheduler refused the job"
    end = describe_end(worker)
    words = last_words(worker)
    return f"{end}\n{words}" if words else end
