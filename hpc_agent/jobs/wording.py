"""How a job's state is told to people: reasons in words, ends with what to do about them."""

from __future__ import annotations

from datetime import UTC, datetime

from hpc_agent.jobs import reasons
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, Worker

_END_ADVICE = {
    JobState.OUT_OF_MEMORY: "it used more memory than it asked for; raise dagster-hpc/mem",
    JobState.TIMEOUT: "it ran into its time limit; raise dagster-hpc/time",
    JobState.NODE_FAIL: "its node failed",
    JobState.BOOT_FAIL: "its node did not start",
    JobState.PREEMPTED: "a job of higher priority took its place",
    JobState.DEADLINE: "its deadline passed before it could end",
    JobState.CANCELLED: "it was cancelled in Slurm (scancel)",
    JobState.LAUNCH_FAILED: (
        "the node could not start it; slurmd's log on it, or the job's output, says why"
    ),
}


def describe_waiting(worker: Worker) -> str:
    """Return for example ``PENDING (Priority: jobs of …), expected to start 14:03 UTC``."""
    words = reasons.in_words(worker.reason)
    reason = f"{worker.reason}: {words}" if words else worker.reason
    text = f"{worker.state.value} ({reason})" if reason and reason != "None" else worker.state.value
    job = worker.job
    if job is None:
        return text
    if job.expected_start:
        start = datetime.fromtimestamp(job.expected_start, UTC)
        text += f", expected to start {start:%Y-%m-%d %H:%M} UTC"
    if job.position is not None:
        text += f", position {job.position} of {job.position_among}"
        text += f" in partition {job.position_partition}"
    return text


def describe(worker: Worker) -> str:
    """Return one line on where a job is now."""
    name = _name(worker)
    match worker.phase:
        case Phase.INTENT:
            return f"waiting to be submitted{': ' + worker.reason if worker.reason else ''}"
        case Phase.SUBMITTING:
            return "being submitted"
        case Phase.QUEUED:
            return f"{name}, {describe_waiting(worker)}"
        case Phase.RUNNING:
            return f"{name}, {worker.state.value} on {worker.nodes or 'a node'}"
        case _:
            return "\n".join(filter(None, [f"{name}, {describe_end(worker)}", last_words(worker)]))


def last_words(worker: Worker) -> str:
    """Return the last lines that a job wrote to its standard error before it failed."""
    has_some = worker.phase is Phase.ENDED and worker.state is JobState.FAILED
    return worker.message if has_some else ""


def describe_since(worker: Worker) -> str:
    """Return the same and, of a job in Slurm's queue, of which partition and since when."""
    words = describe(worker)
    if worker.phase is not Phase.QUEUED or worker.job is None or worker.submitted_at is None:
        return words
    since = datetime.fromtimestamp(worker.submitted_at, UTC)
    partition = f" of partition {worker.job.partition}" if worker.job.partition else ""
    return f"{words}, in the queue{partition} since {since:%Y-%m-%d %H:%M} UTC"


# Code servers whose memory the node program bounds.
_LIMITED = frozenset({Placement.LOGIN, Placement.PACKED})


def _name(worker: Worker) -> str:
    if worker.placement is Placement.LOGIN:
        return "process of the login node"
    name = f"job {worker.job_id}" if worker.job_id else "job"
    if worker.placement is Placement.POOL:
        return f"{name} (pool {worker.pool})" if worker.job_id else f"pool {worker.pool}"
    return f"{name} (a pack)" if worker.pack_key else name


def describe_end(worker: Worker) -> str:
    """Return in one line how a job ended and, where there is something to do, what."""
    match worker.phase:
        case Phase.REFUSED:
            return f"refused: {worker.message}"
        case Phase.WITHDRAWN:
            return "withdrawn before it was submitted"
        case Phase.LOST:
            return f"lost: {worker.message}"
        case _:
            pass
    text = worker.state.value
    if worker.state is JobState.CANCELLED and worker.terminate_at is not None:
        return f"{text} as requested"
    if worker.state is JobState.FAILED:
        text += f" ({_exit_words(worker)})"
    advice = _END_ADVICE.get(worker.state)
    if worker.state is JobState.OUT_OF_MEMORY and worker.placement in _LIMITED:
        advice = f"{worker.message}; raise code_servers.{worker.placement.value}.memory_mb"
    return f"{text}: {advice}" if advice else text


def _exit_words(worker: Worker) -> str:
    if worker.signal:
        return f"ended by signal {worker.signal}"
    if worker.exit_code is not None:
        return f"exit code {worker.exit_code}"
    return "exit code unknown"
