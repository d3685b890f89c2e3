"""What `dagster api execute_step` is told: the part of a run's state that its steps need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.handle import ResolvedFromDynamicStepHandle
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode
from dagster._grpc.types import ExecuteStepArgs

from dagster_hpc.jobs import JobError

LONGEST = 128 * 1024 - 200
"""What the agent takes, for Linux bounds "NAME=VALUE" (MAX_ARG_STRLEN, execve(2))."""

DynamicMappings = Mapping[str, Mapping[str, "Sequence[str] | None"]]


def arguments_of(
    steps: Sequence[ExecutionStep],
    *,
    plan_context: PlanOrchestrationContext,
    retry_mode: RetryMode,
    known_state: KnownExecutionState,
) -> str:
    """Return the value of DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS. Raises JobError if it is too long.

    Of a thousand mapped steps each one is told of itself alone, and not of its siblings.
    """
    arguments = ExecuteStepArgs(
        job_origin=plan_context.reconstructable_job.get_python_origin(),
        run_id=plan_context.dagster_run.run_id,
        step_keys_to_execute=[step.key for step in steps],
        instance_ref=plan_context.plan_data.instance.get_ref(),
        retry_mode=retry_mode.for_inner_plan(),
        known_state=needed_by(steps, known_state),
        should_verify_step=False,
        print_serialized_events=False,
    )
    (variable,) = arguments.get_command_env()
    value = variable["value"]
    if len(value) > LONGEST:
        raise JobError(
            f"step {steps[0].key} would be told {len(value) // 1024} KiB of the run's state, and "
            "an environment variable takes 128: it needs the outputs of too many steps. Collect "
            "them in two levels"
        )
    return value


def needed_by(steps: Sequence[ExecutionStep], known: KnownExecutionState) -> KnownExecutionState:
    """Return the part of a run's state that concerns these steps."""
    keys = {step.key for step in steps}
    inputs = {
        output
        for step in steps
        for each in step.step_inputs
        for output in each.get_step_output_handle_dependencies()
    }
    return known._replace(
        previous_retry_attempts={
            key: count for key, count in known.previous_retry_attempts.items() if key in keys
        },
        ready_outputs=known.ready_outputs & inputs,
        dynamic_mappings=_mappings(steps, known.dynamic_mappings),
    )


def _mappings(steps: Sequence[ExecutionStep], mappings: DynamicMappings) -> DynamicMappings:
    """Without the siblings, where all steps are mapped ones: a collecting step needs them all."""
    own = [step.handle for step in steps if isinstance(step.handle, ResolvedFromDynamicStepHandle)]
    if len(own) < len(steps):
        return mappings
    kept = {handle.mapping_key for handle in own}
    return {
        step_key: {
            output: None if keys is None else [key for key in keys if key in kept]
            for output, keys in outputs.items()
        }
        for step_key, outputs in mappings.items()
    }
