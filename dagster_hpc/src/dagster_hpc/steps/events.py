"""The events of steps, in the order in which Dagster's state machine takes them.

A job of a group runs several steps, and tells of one before the executor knows that it is ready:
its events wait. A job that has been repeated tells twice: the second time is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

from dagster import DagsterEventType
from dagster._core.events import DagsterEvent
from dagster._core.execution.plan.objects import StepRetryData

from dagster_hpc.jobs import JobName


class StepEvents:
    """Which steps are in flight, what has been heard of them, and which events wait."""

    def __init__(self) -> None:
        self._in_flight: set[str] = set()
        self._begun: set[str] = set()
        self._over: set[str] = set()
        self._waiting: dict[str, list[DagsterEvent]] = {}
        self._due: list[DagsterEvent] = []
        self._outputs: set[tuple[str, str, str | None]] = set()

    @property
    def in_flight(self) -> frozenset[str]:
        """Steps that have been launched, and whose end has not been passed on."""
        return frozenset(self._in_flight)

    def launch(self, step: str) -> None:
        """Note that a step is in flight; what is known of it already is due."""
        self._in_flight.add(step)
        self._due += self._taken(self._waiting.pop(step, []))

    def has_begun(self, step: str) -> bool:
        """Whether an event of the step's execution has been seen since it was launched."""
        return step in self._begun

    def is_over(self, step: str) -> bool:
        """Whether the end of a step has been seen, passed on or not."""
        return step in self._over

    def due(self) -> list[DagsterEvent]:
        """Return the events that have waited for their step, and are due now."""
        found, self._due = self._due, []
        return found

    def sort(
        self, events: Iterable[DagsterEvent], expected: Callable[[str], bool]
    ) -> list[DagsterEvent]:
        """Return what may be passed on; ``expected`` says which steps may be ahead of us."""
        found = []
        for event in events:
            step = event.step_key
            if step is None or not _moves(event):
                found.append(event)
            elif step in self._in_flight:
                found += self._taken([event])
            elif expected(step):
                self._hear(step, event)
                self._waiting.setdefault(step, []).append(event)
        return found

    def forget(self, step: str) -> None:
        """Drop what waits of a step, which will be executed anew."""
        self._waiting.pop(step, None)
        self._begun.discard(step)
        self._over.discard(step)

    def replay(self, events: Sequence[DagsterEvent]) -> list[DagsterEvent]:
        """Return what an earlier run worker has seen of attempts that have ended, each event once.

        What was told of the others waits until their step is launched or found again. Without
        skipped steps: the state machine finds them by itself, and minds to be told.
        """
        found = []
        going = launched(events)
        ends = {event.step_key: at for at, event in enumerate(events) if is_end(event)}
        over: set[str | None] = set()
        for at, event in enumerate(events):
            step = event.step_key
            if event.is_step_skipped or (_moves(event) and step in over):
                continue
            if step is not None and _moves(event) and at > ends.get(step, -1):
                if not event.is_resource_init_failure:
                    self._waiting.setdefault(step, []).append(event)
                continue
            if step is not None and self._is_repeated(step, event):
                continue
            is_past = event.is_step_up_for_retry and (step in going or at < ends[step])
            found.append(_without_delay(event) if is_past else event)
            if step is not None and is_end(event):
                self._forget_outputs(step)
                if not event.is_step_up_for_retry:
                    over.add(step)
        return found

    def _taken(self, events: Sequence[DagsterEvent]) -> list[DagsterEvent]:
        found = []
        for event in events:
            step = event.step_key
            if step is None or step not in self._in_flight:
                continue
            self._hear(step, event)
            if self._is_repeated(step, event):
                continue
            found.append(event)
            if is_end(event):
                self._in_flight.discard(step)
                self._begun.discard(step)
                self._over.discard(step)
                self._forget_outputs(step)
        return found

    def _is_repeated(self, step: str, event: DagsterEvent) -> bool:
        if not event.is_successful_output:
            return False
        handle = event.step_output_data.step_output_handle
        output = (step, handle.output_name, handle.mapping_key)
        is_known = output in self._outputs
        self._outputs.add(output)
        return is_known

    def _forget_outputs(self, step: str) -> None:
        self._outputs = {each for each in self._outputs if each[0] != step}

    def _hear(self, step: str, event: DagsterEvent) -> None:
        self._begun.add(step)
        if is_end(event) or event.is_resource_init_failure:
            self._over.add(step)


def launched(events: Iterable[DagsterEvent]) -> dict[str, JobName]:
    """Return the steps that have been launched and have not ended since, each with its job."""
    found: dict[str, JobName] = {}
    for event in events:
        if event.step_key is None:
            continue
        if event.event_type is DagsterEventType.STEP_WORKER_STARTING:
            metadata = event.engine_event_data.metadata
            if "steps" in metadata:
                job = JobName(event.step_key, int(str(metadata["attempt"].value)))
                found |= dict.fromkeys(cast("list[str]", metadata["steps"].value), job)
        elif is_end(event):
            found.pop(event.step_key, None)
    return found


def is_end(event: DagsterEvent) -> bool:
    """Whether the event ends an attempt of a step."""
    return event.is_step_success or event.is_step_failure or event.is_step_up_for_retry


def _moves(event: DagsterEvent) -> bool:
    """Whether the state machine does something upon it."""
    return (
        is_end(event)
        or event.is_successful_output
        or event.is_step_start
        or event.is_resource_init_failure
    )


def _without_delay(retry: DagsterEvent) -> DagsterEvent:
    """Return a retry that is over: another delay would be counted from now on."""
    data = StepRetryData(error=retry.step_retry_data.error)  # type: ignore[no-untyped-call]
    return retry._replace(event_specific_data=data)
