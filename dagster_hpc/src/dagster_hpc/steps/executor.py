"""``slurm_executor``: each step of a run in its place, as a Slurm job or beside the run worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from dagster import (
    DagsterEvent,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    DagsterInvariantViolationError,
    Enum,
    EnumValue,
    Field,
    Int,
    executor,
)
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.execution.tags import get_tag_concurrency_limits_config
from dagster._core.executor.base import Executor
from dagster._core.executor.init import InitExecutorContext
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)
from dagster._grpc.types import ExecuteStepArgs

from dagster_hpc.jobs import JobError, Launcher
from dagster_hpc.launchers.launcher import launcher_of_run
from dagster_hpc.launchers.local import LocalLauncher
from dagster_hpc.steps import groups
from dagster_hpc.steps.dispatch import Dispatch
from dagster_hpc.steps.execution import Execution
from dagster_hpc.steps.news import News
from dagster_hpc.steps.places import AUTO, Place, place_of
from dagster_hpc.unwanted import are_unwanted

_LOOP_SECONDS = 0.05
_LEAST_BETWEEN_LOOKS = 0.2
"""Seconds: the control plane is asked for events five times a second at most."""
_MOST_BETWEEN_LOOKS = 10.0
_WAIT = 1.0
"""Dagster's loop has clocks of its own: retries that are due, slots of pools."""
_LATE_WAIT = 0.3
_LONGEST_TROUBLE = 24 * 3600.0
"""Seconds without the events of the run, after which it fails."""
_TROUBLE_PAUSE = 5.0
_NEVER = 10**9

Loop = Callable[..., Iterator[DagsterEvent]]

_log = logging.getLogger(__name__)


class _Handler(StepHandler):
    """What Dagster's loop calls for each step; it is the dispatch that does it."""

    def __init__(self) -> None:
        self.dispatch: Dispatch | None = None

    @property
    def name(self) -> str:
        """As the run's log says it."""
        return "SlurmStepHandler"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Hand a step over."""
        for step in step_handler_context.step_tags:
            self.the_dispatch.launch(step)
        return iter(())

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Return whether a step of an earlier run worker has a job; called when a run resumes."""
        (step,) = step_handler_context.step_tags
        if self.the_dispatch.find_again(step):
            return CheckStepHealthResult.healthy()
        return CheckStepHealthResult.unhealthy("it has no job")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Leave it to the end of the execution, where all are ended at once."""
        return iter(())

    @property
    def the_dispatch(self) -> Dispatch:
        """The dispatch of the run that is being executed."""
        assert self.dispatch is not None  # noqa: S101  (set before Dagster's loop begins)
        return self.dispatch


class SlurmExecutor(StepDelegatingExecutor):
    """Dagster's loop, woken by news of jobs where the original sleeps."""

    def __init__(
        self, *, default: str, max_jobs: int | None, retries: RetryMode, **limits: Any
    ) -> None:
        self._handler = _Handler()
        super().__init__(
            self._handler,
            retries,
            sleep_seconds=_LOOP_SECONDS,
            check_step_health_interval_seconds=_NEVER,
            **limits,
        )
        self._default = default
        self._max_jobs = max_jobs
        self._launchers: list[Launcher] = []
        self._news: News | None = None
        self._must_replay = False
        self._looked_at = time.monotonic()
        self._trouble = ""
        self._has_more = True

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        """Execute a run. However that ends, nothing is left running that nobody looks after."""
        _check(execution_plan, self._default)
        self._must_replay = plan_context.resume_from_failure
        with self._dispatching(plan_context):
            yield from _loop(self, plan_context, execution_plan)

    @contextmanager
    def _dispatching(self, run: PlanOrchestrationContext) -> Iterator[None]:
        launcher = launcher_of_run(run.run_id)
        local = launcher if isinstance(launcher, LocalLauncher) else LocalLauncher(run.run_id)
        self._launchers = [launcher] if local is launcher else [launcher, local]
        dispatch = Dispatch(
            run,
            launcher=launcher,
            local=local,
            default=self._default,
            retries=self.retries,
            max_jobs=self._max_jobs,
        )
        self._handler.dispatch = dispatch
        try:
            yield
        except (DagsterExecutionInterruptedError, KeyboardInterrupt):
            if are_unwanted(launcher, run.instance, run.run_id):
                _cancel(dispatch, run)
            raise
        except BaseException:
            _cancel(dispatch, run)
            raise
        finally:
            if self._news is not None:
                self._news.stop()
            for each in self._launchers:
                each.close()

    def _pop_events(
        self, instance: DagsterInstance, run_id: str, seen_storage_ids: set[int]
    ) -> Sequence[DagsterEvent]:
        """Send off what is ready, wait for news, and return the events that have come."""
        dispatch = self._handler.the_dispatch
        if self._must_replay:
            self._must_replay = False
            return dispatch.replay(self._all_events(instance, run_id, seen_storage_ids))
        if due := dispatch.due():
            return due
        has_executed = dispatch.depart()
        if self._wait(dispatch, is_at_once=has_executed):
            try:
                found = self._look(instance, run_id, seen_storage_ids)
            except Exception as error:  # noqa: BLE001  (each storage has errors of its own)
                self._wait_out(error)
                return ()
            events = dispatch.sort(found)
            if not self._has_more:
                # What is written of a step that was lost is read at once.
                self._has_more = dispatch.settle()
            return events
        return ()

    def _wait(self, dispatch: Dispatch, *, is_at_once: bool) -> bool:
        """Wait for a reason to look at the run's events; False when there is none for now."""
        if self._news is None:
            self._news = News(self._launchers)
        is_late = dispatch.is_waiting_for_events
        wait = 0.0 if is_at_once or self._has_more else _LATE_WAIT if is_late else _WAIT
        news = self._news.wait(wait)
        dispatch.note(news or ())
        since = time.monotonic() - self._looked_at
        if news is None and wait == _WAIT and since < _MOST_BETWEEN_LOOKS:
            return False
        time.sleep(max(0.0, _LEAST_BETWEEN_LOOKS - since))
        return True

    def _look(
        self, instance: DagsterInstance, run_id: str, seen_storage_ids: set[int]
    ) -> Sequence[DagsterEvent]:
        known = len(seen_storage_ids)
        events = super()._pop_events(instance, run_id, seen_storage_ids)
        self._looked_at = time.monotonic()
        self._trouble = ""
        self._has_more = len(seen_storage_ids) - known >= self._pop_events_limit // 2
        return events

    def _wait_out(self, error: Exception) -> None:
        """Go on without the events for a while: the jobs do, whoever has the events is away."""
        self._has_more = True
        if str(error) != self._trouble:
            self._trouble = str(error)
            _log.warning("the run's events cannot be read, trying again: %s", error)
        if time.monotonic() - self._looked_at > _LONGEST_TROUBLE:
            raise error
        time.sleep(_TROUBLE_PAUSE)

    def _all_events(
        self, instance: DagsterInstance, run_id: str, seen_storage_ids: set[int]
    ) -> Iterator[DagsterEvent]:
        """Dagster's own loop reads the first page of an earlier run worker's events alone."""
        is_complete = False
        while not is_complete:
            known = len(seen_storage_ids)
            yield from super()._pop_events(instance, run_id, seen_storage_ids)
            is_complete = len(seen_storage_ids) == known

    def _get_step_handler_context(
        self,
        plan_context: PlanOrchestrationContext,
        steps: Sequence[ExecutionStep],
        active_execution: ActiveExecution,
    ) -> StepHandlerContext:
        """Without the run's state, which is costly, and is taken when steps depart."""
        self._handler.the_dispatch.active = active_execution
        return StepHandlerContext(
            instance=plan_context.plan_data.instance,
            plan_context=plan_context,
            steps=steps,
            execute_step_args=ExecuteStepArgs(
                job_origin=plan_context.reconstructable_job.get_python_origin(),
                run_id=plan_context.dagster_run.run_id,
                step_keys_to_execute=[step.key for step in steps],
            ),
            dagster_run=plan_context.dagster_run,
        )


def _with_execution(loop: Loop) -> Loop:
    """Return Dagster's loop with ``Execution``: it makes its state machine itself, by this name.

    A loop of another form is left as it is: runs with it resume as far as Dagster's own do.
    """
    if not isinstance(loop, FunctionType) or loop.__closure__ or loop.__defaults__:
        return loop
    return FunctionType(loop.__code__, {**loop.__globals__, "ActiveExecution": Execution})


_loop = _with_execution(StepDelegatingExecutor.execute)


@executor(
    name="slurm",
    config_schema={
        "default": Field(
            Enum("SlurmPlace", [EnumValue(AUTO), *(EnumValue(each.value) for each in Place)]),
            default_value=AUTO,
            description=(
                "Where steps run without a tag `dagster-hpc/step`. `auto`: those with Slurm "
                "options in their tags get a job of their own, the others a process in the "
                "allocation of the run."
            ),
        ),
        "max_concurrent": Field(
            Int, is_required=False, description="How many steps of the run may be in progress."
        ),
        "max_jobs": Field(
            Int,
            is_required=False,
            description="How many jobs of the run may wait or run in Slurm at the same time.",
        ),
        "tag_concurrency_limits": get_tag_concurrency_limits_config(),  # type: ignore[no-untyped-call]
        "retries": get_retries_config(),  # type: ignore[no-untyped-call]
    },
    requirements=multiple_process_executor_requirements(),
)
def slurm_executor(init_context: InitExecutorContext) -> Executor:
    """Run each step in its place: a Slurm job, an srun step, a process, or the run worker itself.

    Tags of an op or asset say what it needs (``SlurmOptions``) and where it runs. Without an agent,
    the steps are child processes.
    """
    config: Mapping[str, Any] = init_context.executor_config
    return SlurmExecutor(
        default=config["default"],
        max_jobs=config.get("max_jobs"),
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        max_concurrent=config.get("max_concurrent"),
        tag_concurrency_limits=config.get("tag_concurrency_limits"),
    )


def _check(plan: ExecutionPlan, default: str) -> None:
    """Refuse a run whose tags cannot be followed, with all that is wrong, before it begins."""
    chosen = set(plan.step_keys_to_execute)
    steps = {step.key: step for step in plan.steps if step.key in chosen}
    tags = {key: step.tags or {} for key, step in steps.items()}
    wrong = []
    for key, each in tags.items():
        try:
            place_of(each, default)
        except ValueError as error:
            wrong.append(f"step {key}: {error}")
    pooled = {key for key, step in steps.items() if step.pool}
    wrong += groups.errors(tags, plan.get_all_step_deps(), pooled)
    if wrong:
        raise DagsterInvariantViolationError("\n".join(wrong))


def _cancel(dispatch: Dispatch, run: PlanOrchestrationContext) -> None:
    """End all jobs; one that asks the agent in vain leaves it to the agent, which knows the run."""
    try:
        dispatch.cancel()
    except JobError as error:
        DagsterEvent.engine_event(run, f"The jobs of steps could not be ended: {error}")
