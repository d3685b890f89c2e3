"""A step in the process of the executor: for what is done in a second."""

from __future__ import annotations

import traceback

from dagster._core.execution.api import create_execution_plan, execute_plan_iterator
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode


def execute(
    step: ExecutionStep,
    *,
    plan_context: PlanOrchestrationContext,
    retry_mode: RetryMode,
    known_state: KnownExecutionState,
) -> str:
    """Execute a step; its events go to the run's log. Returns what went wrong besides, or ""."""
    run, job = plan_context.dagster_run, plan_context.reconstructable_job
    try:
        plan = create_execution_plan(
            job,
            run_config=run.run_config,
            step_keys_to_execute=[step.key],
            known_state=known_state,
            repository_load_data=plan_context.execution_plan.repository_load_data,
        )
        for _ in execute_plan_iterator(
            plan,
            job,
            run,
            instance=plan_context.instance,
            run_config=run.run_config,
            retry_mode=retry_mode.for_inner_plan(),
        ):
            pass
    except Exception:  # noqa: BLE001  (it fails the step, not the run worker)
        return traceback.format_exc()
    return ""
