"""The last word on a run whose job is over: did it close itself, and if not, how does it end."""

from __future__ import annotations

import enum

from hpc_agent.dagster_plus.agent_calls import FINISHED_STATUSES
from hpc_agent.jobs.wording import describe_end
from hpc_agent.slurm.state import JobState
from hpc_agent.store.jobs import Job, Phase

FINISHED = frozenset(FINISHED_STATUSES)


class Verdict(enum.Enum):
    """What the agent has to say about a run whose job is over."""

    NOTHING = "nothing"
    CANCELED = "canceled"
    FAILED = "failed"


def judge(job: Job, run_status: str | None) -> Verdict:
    """Decide how a run ends, given its status in the control plane (None: it was deleted)."""
    if run_status is None or run_status in FINISHED:
        return Verdict.NOTHING
    if job.phase is Phase.REFUSED:
        # The answer to the launch request says so already, and the control plane fails the run.
        return Verdict.NOTHING
    if job.terminate_at is not None or run_status == "CANCELING":
        return Verdict.CANCELED
    return Verdict.FAILED


def failure_message(job: Job, no_more: str = "") -> str:
    """Return the message with which a run fails that its run worker left open.

    ``no_more`` says why there is no further attempt, where the policy wanted one.
    """
    message = _failure(job)
    return f"{message}; {no_more}" if no_more else message


def _failure(job: Job) -> str:
    end = describe_end(job)
    name = f"Job {job.job_id}" if job.job_id else "The job"
    if job.state is JobState.COMPLETED:
        return f"{name} ended without finishing the run: {job.message or end}"
    return f"{name} did not finish the run: {end}"
