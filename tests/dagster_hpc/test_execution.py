"""The state machine of a run, made again from events, whatever has its limits now."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from dagster import (
    DagsterEvent,
    DagsterInstance,
    DagsterRun,
    Failure,
    JobDefinition,
    OpExecutionContext,
    RetryPolicy,
    graph,
    op,
)
from dagster._core.events import EngineEventData
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import StepRetryData
from dagster._core.execution.retries import RetryMode
from dagster_hpc.steps.events import StepEvents
from dagster_hpc.steps.execution import Execution

from tests.dagster_hpc.runs import RUN

POOL = "narrow"


@op(retry_policy=RetryPolicy(max_retries=1))
def at_second(context: OpExecutionContext) -> int:
    if context.retry_number == 0:
        raise Failure("the first time")
    return 1


@op(pool=POOL)
def in_pool(value: int) -> int:
    return value


@op
def last(value: int) -> None:
    """End the run."""


@graph
def chain() -> None:
    last(in_pool(at_second()))


@pytest.fixture(scope="module")
def job() -> JobDefinition:
    return chain.to_job()


@pytest.fixture(scope="module")
def told(job: JobDefinition) -> list[DagsterEvent]:
    """What a run has told whose first step was tried again after half a minute."""
    return [
        each._replace(
            event_specific_data=StepRetryData(each.step_retry_data.error, 30)  # type: ignore[no-untyped-call]
        )
        if each.is_step_up_for_retry
        else each
        for each in job.execute_in_process().all_events
    ]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with a pool of one slot, which another run has."""
    with DagsterInstance.local_temp(str(tmp_path)) as found:
        found.event_log_storage.set_concurrency_slots(POOL, 1)
        found.event_log_storage.claim_concurrency_slot(POOL, "another-run", "its-step")
        yield found


@contextmanager
def execution(
    job: JobDefinition, instance: DagsterInstance, *, most: int | None = None
) -> Iterator[Execution]:
    plan = create_execution_plan(job)
    run = DagsterRun(job.name, RUN)
    with InstanceConcurrencyContext(instance, run) as slots:
        made = Execution(
            plan,
            retry_mode=RetryMode.ENABLED,
            max_concurrent=most,
            instance_concurrency_context=slots,
        )
        yield made.__enter__()


def until(events: Sequence[DagsterEvent], kind: str, step: str) -> list[DagsterEvent]:
    """Return the events up to one of a step."""
    at = [(each.event_type_value, each.step_key) for each in events].index((kind, step))
    return list(events[: at + 1])


def starting(step: str, attempt: int = 0) -> DagsterEvent:
    """Return the event of a step's launch."""
    data = EngineEventData({"steps": [step], "attempt": attempt})
    return DagsterEvent("STEP_WORKER_STARTING", "chain", step_key=step, event_specific_data=data)


def holders(instance: DagsterInstance) -> set[str]:
    """Return the steps that have a slot."""
    info = instance.event_log_storage.get_concurrency_info(POOL)
    return {each.step_key for each in info.claimed_slots}


def test_a_retry_that_has_begun_waits_no_more(
    job: JobDefinition, told: list[DagsterEvent], instance: DagsterInstance
) -> None:
    """Its step has ended since, or is in flight; one that nobody has begun waits."""
    with execution(job, instance) as whole:
        assert whole.rebuild_from_events(StepEvents().replay(told)) == []
        assert whole.is_complete
    with execution(job, instance) as part:
        part.rebuild_from_events(StepEvents().replay(until(told, "STEP_UP_FOR_RETRY", "at_second")))
        assert set(part._waiting_to_retry) == {"at_second"}


def test_a_step_that_has_ended_needs_no_slot(
    job: JobDefinition, told: list[DagsterEvent], instance: DagsterInstance
) -> None:
    """Another run has it now, and keeps it."""
    events = until(told, "STEP_SUCCESS", "in_pool")
    with execution(job, instance) as made:
        made.rebuild_from_events(StepEvents().replay(events))
        assert made._success == {"at_second", "in_pool"}
        assert [step.key for step in made.get_steps_to_execute()] == ["last"]
    assert holders(instance) == {"its-step"}


def test_what_goes_on_has_its_turn(
    job: JobDefinition, told: list[DagsterEvent], instance: DagsterInstance
) -> None:
    """With or without a slot, and no claim is left that nobody makes good."""
    events = [*until(told, "STEP_SUCCESS", "at_second"), starting("in_pool")]
    with execution(job, instance) as made:
        (step,) = made.rebuild_from_events(StepEvents().replay(events))
        assert step.key == "in_pool"
        slots = made._instance_concurrency_context
        assert slots is not None
        assert not slots.has_pending_claims()


def test_what_was_not_launched_waits_for_its_turn(
    job: JobDefinition, told: list[DagsterEvent], instance: DagsterInstance
) -> None:
    """A slot that its run still has for a step that has ended is freed."""
    storage = instance.event_log_storage
    with execution(job, instance) as made:
        events = until(told, "STEP_SUCCESS", "at_second")
        assert made.rebuild_from_events(StepEvents().replay(events)) == []
        assert made.get_steps_to_execute() == []
    storage.set_concurrency_slots(POOL, 2)
    assert storage.claim_concurrency_slot(POOL, RUN, "in_pool").is_claimed
    with execution(job, instance) as made:
        events = until(told, "STEP_SUCCESS", "in_pool")
        made.rebuild_from_events(StepEvents().replay(events))
    assert holders(instance) == {"its-step"}


def test_limits_hold_for_what_goes_on(instance: DagsterInstance) -> None:
    """A job of a group has more steps than may be in progress: the others follow one by one."""

    @graph
    def three() -> None:
        for name in "abc":
            at_second.alias(name)()

    events = [starting(name) for name in "bca"]
    with execution(three.to_job(), instance, most=2) as made:
        going = made.rebuild_from_events(events)
        assert [step.key for step in going] == ["b", "c"]
        made.mark_success("b")
        assert [step.key for step in made.get_steps_to_execute(1)] == ["a"]
