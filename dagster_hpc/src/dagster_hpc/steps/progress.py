"""What a run's log says of the jobs of its steps: a few lines for each, with what a user asks."""

from __future__ import annotations

from dagster import MetadataValue
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.context.system import IStepContext

from dagster_hpc.jobs import JobStatus, Phase
from dagster_hpc.steps.places import Place

_WAITS_IN_THE_CHART = "step_process_start"
"""The marker of Dagster's own executors, which the Gantt chart draws before a step."""

_WORDS = {
    Place.JOB: "as a job of its own",
    Place.SRUN: "as a step of srun in the run's allocation",
    Place.PROCESS: "in a process of its own beside the run worker",
    Place.IN_PROCESS: "in the run worker",
}


def tell_launched(context: IStepContext, place: Place, steps: list[str], attempt: int) -> None:
    """Write that a step is on its way, with others in its job; its time in the queue begins.

    The next run worker reads it (``launched``), and knows which job carries a step.
    """
    together = f", with {', '.join(steps[1:])}" if len(steps) > 1 else ""
    DagsterEvent.step_worker_starting(
        context,
        f"Step {context.step.key} will run {_WORDS[place]}{together}.",
        metadata={"steps": steps, "attempt": attempt},
    )


def tell_change(
    context: IStepContext, before: JobStatus, now: JobStatus, *, is_group: bool, may_wait: bool
) -> bool:
    """Write what has happened to a job; whether it was a line about its waiting.

    A job that waits for hours changes its reason often: ``may_wait`` False leaves such lines out.
    """
    if now.restarts > before.restarts:
        _write(context, now, f"{_name(now)} is repeated: {now.reason or now.state}.")
    if now.phase is Phase.RUNNING and before.phase is not Phase.RUNNING:
        marker = _WAITS_IN_THE_CHART if is_group else None
        where = f" on {now.nodes}" if now.nodes else ""
        _write(context, now, f"It runs as {_name(now)}{where}{_after(now)}.", marker_end=marker)
    elif may_wait and _waits(now) not in {"", _waits(before)}:
        _write(context, now, _waits(now))
        return True
    return False


def why(status: JobStatus) -> str:
    """Return why a step has not come to its end, as its failure says it."""
    if status.state == "REFUSED":
        return status.message
    where = f" on {status.nodes}" if status.nodes else ""
    how = [f"state {status.state}"] if status.state else []
    how += [f"exit code {status.exit_code}"] if status.exit_code is not None else []
    how += [f"signal {status.signal}"] if status.signal is not None else []
    words = f"{_name(status)}{where} ended before the step did ({', '.join(how)})"
    return f"{words}:\n{status.message}" if status.message else words


def _name(status: JobStatus) -> str:
    """Return what a job is called: Slurm's have a number, processes their words."""
    if status.job_id is None:
        return "the job"
    return f"job {status.job_id}" if status.job_id[:1].isdigit() else status.job_id


def _waits(status: JobStatus) -> str:
    if status.phase not in {Phase.WAITING, Phase.QUEUED}:
        return ""
    reason = f", and waits: {status.reason}" if status.reason else ""
    if status.job_id is not None:
        return f"Submitted as {_name(status)}{reason}."
    return f"The step waits: {status.reason}." if status.reason else ""


def _after(status: JobStatus) -> str:
    if status.started_at is None or status.submitted_at is None:
        return ""
    return f", after {max(0.0, status.started_at - status.submitted_at):.0f} s in the queue"


def _write(
    context: IStepContext, status: JobStatus, message: str, *, marker_end: str | None = None
) -> None:
    facts = {"job": status.job_id, "node": status.nodes, "reason": status.reason}
    metadata = {name: MetadataValue.text(value) for name, value in facts.items() if value}
    DagsterEvent.engine_event(
        context, message, EngineEventData(metadata=metadata, marker_end=marker_end)
    )
