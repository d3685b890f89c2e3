"""The order of events: what is ahead of its step waits, and what is told twice counts once."""

from collections.abc import Iterator

import pytest
from dagster import DagsterEvent, DynamicOut, DynamicOutput, Out, Output, graph, op
from dagster_hpc.steps.events import StepEvents


@op(out=DynamicOut(int))
def parts() -> Iterator[DynamicOutput[int]]:
    for number in range(3):
        yield DynamicOutput(number, mapping_key=str(number))


@op(out=Out(int, is_required=False))
def none(numbers: list[int]) -> Iterator[Output[int]]:
    yield from ()


@op
def skipped(number: int) -> None:
    """Has no input."""


@graph
def whole() -> None:
    skipped(none(parts().collect()))


@pytest.fixture(scope="module")
def events() -> list[DagsterEvent]:
    """What a run has told."""
    return list(whole.execute_in_process().all_events)


def kinds_of(events: list[DagsterEvent]) -> list[str]:
    return [each.event_type_value for each in events]


def kinds(events: list[DagsterEvent], step: str) -> list[str]:
    """Return the kinds of a step's events that move a run on."""
    moving = ("STEP_START", "STEP_OUTPUT", "STEP_SUCCESS", "STEP_SKIPPED")
    return [
        each.event_type_value
        for each in events
        if each.step_key == step and each.event_type_value in moving
    ]


def test_events_wait_until_their_step_is_launched(events: list[DagsterEvent]) -> None:
    """A job that carries both is ahead of the loop; what nobody expects is dropped."""
    order = StepEvents()
    order.launch("parts")
    passed = order.sort(events, {"none"}.__contains__)
    assert kinds(passed, "parts") == ["STEP_START", *["STEP_OUTPUT"] * 3, "STEP_SUCCESS"]
    assert kinds(passed, "none") == []
    assert order.is_over("none")
    assert order.in_flight == frozenset()
    order.launch("none")
    assert kinds(order.due(), "none") == ["STEP_START", "STEP_SUCCESS"]
    assert kinds(order.sort(events, lambda _: False), "none") == []


def test_a_repeated_job_counts_once(events: list[DagsterEvent]) -> None:
    """It begins again after half of its outputs, and tells its end twice."""
    order = StepEvents()
    order.launch("parts")
    of_it = [each for each in events if each.step_key == "parts"]
    half = [each for each in of_it if each.event_type_value == "STEP_OUTPUT"][:2]
    passed = order.sort([*half, *of_it, *of_it], lambda _: False)
    outputs = [each for each in passed if each.event_type_value == "STEP_OUTPUT"]
    keys = [each.step_output_data.step_output_handle.mapping_key for each in outputs]
    assert keys == ["0", "1", "2"]
    assert kinds(passed, "parts").count("STEP_SUCCESS") == 1


def test_what_has_no_end_waits_for_its_step(events: list[DagsterEvent]) -> None:
    """The next run worker takes it in when it has found the step's job, or begins it anew."""
    order = StepEvents()
    of_it = [each for each in events if each.step_key == "parts"]
    half = of_it[: kinds_of(of_it).index("STEP_SUCCESS")]
    assert kinds(order.replay(half), "parts") == []
    order.launch("parts")
    assert kinds(order.due(), "parts") == ["STEP_START", *["STEP_OUTPUT"] * 3]
    assert kinds(order.sort(of_it, lambda _: False), "parts") == ["STEP_START", "STEP_SUCCESS"]


def test_a_new_run_worker_reads_the_same(events: list[DagsterEvent]) -> None:
    """Without the steps that were skipped, which Dagster finds by itself."""
    replayed = StepEvents().replay([*events, *events])
    assert kinds(replayed, "parts") == ["STEP_START", *["STEP_OUTPUT"] * 3, "STEP_SUCCESS"]
    assert kinds(replayed, "skipped") == []
    assert kinds(events, "skipped") == ["STEP_SKIPPED"]
