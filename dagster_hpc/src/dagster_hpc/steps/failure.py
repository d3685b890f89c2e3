"""The end of a step that could not tell it itself: a failure, or another attempt."""

from __future__ import annotations

from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import IStepContext
from dagster._core.execution.plan.objects import StepFailureData, StepRetryData
from dagster_shared.error import SerializableErrorInfo

from dagster_hpc.jobs import JobStatus
from dagster_hpc.steps.progress import why


def fail(context: IStepContext, status: JobStatus, *, attempts: int) -> None:
    """Write that a step has failed, or is up for retry where its policy has attempts left.

    ``attempts`` are those before this one. What was refused once is refused again. (Executor has a
    method for this, under another name in Dagster 1.11.)
    """
    error = SerializableErrorInfo(message=why(status), stack=[], cls_name=None)
    policy = context.op_retry_policy
    may_retry = not context.retry_mode.disabled and status.state != "REFUSED"
    if policy is not None and may_retry and attempts < policy.max_retries:
        wait = policy.calculate_delay(attempts + 1)
        DagsterEvent.step_retry_event(context, StepRetryData(error=error, seconds_to_wait=wait))  # type: ignore[no-untyped-call]
    else:
        data = StepFailureData(error=error, user_failure_data=None)  # type: ignore[no-untyped-call]
        DagsterEvent.step_failure_event(step_context=context, step_failure_data=data)
