"""How a job's state is told to people: reasons in words, ends with what to do about them."""

from __future__ import annotations

from datetime import UTC, datetime

from hpc_agent.jobs import reasons
from hpc_agent.slurm.state import JobState
from hpc_agent.store.jobs import Job, Phase, Placement

_END_ADVICE = {
    JobState.OUT_OF_MEMORY: "it used more memory than it asked for; raise dagster-hpc/mem",
    JobState.TIMEOUT: "it ran into its time limit; raise dagster-hpc/time",
    JobState.NODE_FAIL: "its node failed",
    JobState.BOOT_FAIL: "its node did not start",
    JobState.PREEMPTED: "a job of higher priority took its place",
    JobState.DEADLINE: "its deadline passed before it could end",
    JobState.CANCELLED: "it was cancelled in Slurm (scancel)",
    JobState.LAUNCH_FAILED: "the node could not start it; slurmd's log on it says why",
}


def describe_waiting(job: Job) -> str:
    """Return for example ``PENDING (Priority: jobs of …), expected to start 14:03 UTC``."""
    words = reasons.in_words(job.reason)
    reason = f"{job.reason}: {words}" if words else job.reason
    text = f"{job.state.value} ({reason})" if reason and reason != "None" else job.state.value
    if job.expected_start:
        start = datetime.fromtimestamp(job.expected_start, UTC)
        text += f", expected to start {start:%Y-%m-%d %H:%M} UTC"
    if job.position is not None:
        text += f", position {job.position} of {job.position_among}"
        text += f" in partition {job.position_partition}"
    return text


def describe(job: Job) -> str:
    """Return one line on where a job is now."""
    name = _name(job)
    match job.phase:
        case Phase.INTENT:
            return f"waiting to be submitted{': ' + job.reason if job.reason else ''}"
        case Phase.SUBMITTING:
            return "being submitted"
        case Phase.QUEUED:
            return f"{name}, {describe_waiting(job)}"
        case Phase.RUNNING:
            return f"{name}, {job.state.value} on {job.nodes or 'a node'}"
        case _:
            return f"{name}, {describe_end(job)}"


def _name(job: Job) -> str:
    if job.placement is Placement.LOGIN:
        return "process of the login node"
    name = f"job {job.job_id}" if job.job_id else "job"
    return f"{name} (a pack)" if job.pack_key else name


def describe_end(job: Job) -> str:
    """Return how a job ended and, where there is something to do, what."""
    match job.phase:
        case Phase.REFUSED:
            return f"refused: {job.message}"
        case Phase.WITHDRAWN:
            return "withdrawn before it was submitted"
        case Phase.LOST:
            return f"lost: {job.message}"
        case _:
            pass
    text = job.state.value
    if job.state is JobState.CANCELLED and job.terminate_at is not None:
        return f"{text} as requested"
    if job.state is JobState.FAILED:
        text += f" ({_exit_words(job)})"
    advice = _END_ADVICE.get(job.state)
    if job.state is JobState.OUT_OF_MEMORY and job.placement is not Placement.JOB:
        advice = f"{job.message}; raise code_servers.{job.placement.value}.memory_mb"
    if advice:
        text += f": {advice}"
    return f"{text}\n{job.message}" if job.message and job.state is JobState.FAILED else text


def _exit_words(job: Job) -> str:
    if job.signal:
        return f"ended by signal {job.signal}"
    if job.exit_code is not None:
        return f"exit code {job.exit_code}"
    return "exit code unknown"
