"""Event writes: decoded, stored through the Dagster instance, exactly once per idempotency key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from dagster import DagsterEvent, DagsterEventType, DagsterInstance
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import EventSpecificData
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.handle import StepHandle
from dagster_shared.error import SerializableErrorInfo

from hpc_agent.control_plane.interrupted_writes import complete, newest_of, set_status
from hpc_agent.control_plane.received import received, refusing
from hpc_agent.control_plane.store.idempotency import IdempotencyKeys, Seen
from hpc_agent.inbound.json_text import loads_object
from hpc_agent.metrics.gateway import EVENT_WRITES, EVENTS_STORED
from hpc_agent.metrics.meter import SILENT, Meter, timed

_OF_CANCELLATION = frozenset({DagsterEventType.RUN_CANCELING, DagsterEventType.RUN_CANCELED})
_ENDS = {DagsterEventType.RUN_SUCCESS, DagsterEventType.RUN_FAILURE}


class EventWriter:
    """Stores events as DagsterInstance would store its own; blocking, for worker threads."""

    def __init__(
        self, instance: DagsterInstance, keys: IdempotencyKeys, meter: Meter = SILENT
    ) -> None:
        self._instance = instance
        self._keys = keys
        self._meter = meter

    def write(self, entries: Sequence[EventLogEntry], idempotency_key: str | None) -> None:
        """Store events; a key seen before means that they are stored already."""
        with timed(self._meter, EVENT_WRITES):
            self._write(entries, idempotency_key)

    def _write(self, entries: Sequence[EventLogEntry], idempotency_key: str | None) -> None:
        if idempotency_key is None:
            self._store(entries)
            return
        with self._keys.once(idempotency_key) as seen:
            if seen is Seen.NEW:
                self._store(entries)
            elif seen is Seen.BEGUN:
                self._store(entries, again=True)

    def _store(self, entries: Sequence[EventLogEntry], *, again: bool = False) -> None:
        for entry in entries:
            if not (again and complete(self._instance, entry)):
                self._store_one(entry)
            if entry.dagster_event_type in _OF_CANCELLATION:
                self._keep_end(entry.run_id)

    def _store_one(self, entry: EventLogEntry) -> None:
        if self._instance.should_store_event(entry):
            self._instance.handle_new_event(entry)
        else:
            # What OSS keeps no record of, that an asset failed: the client counts on it.
            self._instance.event_log_storage.store_event(entry)
        self._meter.count(EVENTS_STORED)

    def _keep_end(self, run_id: str) -> None:
        """Let a run that has succeeded or failed stay so, whatever is said of its cancellation.

        A worker that is ended looks whether the run is being canceled, and says so; an agent ends
        what it takes for running. The monitor that ends a run after its maximum runtime says
        "failed" as soon as the termination is sent: in between, or before, or after. Looked for
        when both statuses may be written, and each writes its event first: whatever the order, the
        end stays that it had.
        """
        if (end := newest_of(self._instance, run_id, _ENDS)) is not None:
            set_status(self._instance, end)


def decode_entry(record: Mapping[str, Any]) -> EventLogEntry:
    """Decode an EventLogEntryInput, field names in snake case.

    The inverse of ``_input_for_event`` in dagster_cloud/storage/event_logs/storage.py. Raises
    ControlPlaneRefusedError.
    """
    with refusing("EventLogEntryInput"):
        return _decode_entry(record)


def _decode_entry(record: Mapping[str, Any]) -> EventLogEntry:
    event = record.get("dagster_event")
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=_decode_error(record.get("error_info")),
        level=record["level"],
        user_message=record["user_message"],
        run_id=record["run_id"],
        timestamp=record["timestamp"],
        step_key=record.get("step_key"),
        job_name=record.get("pipeline_name"),
        dagster_event=_decode_event(event) if event is not None else None,
    )


def _decode_event(event: Mapping[str, Any]) -> DagsterEvent:
    step, node = event.get("step_handle_key"), event.get("solid_handle_id")
    tags, data = event.get("logging_tags"), event.get("event_specific_data")
    return DagsterEvent(
        event_type_value=event["event_type_value"],
        job_name=event["pipeline_name"],
        step_handle=cast("StepHandle", StepHandle.parse_from_key(step)) if step else None,
        node_handle=NodeHandle.from_string(node) if node else None,
        step_kind_value=event.get("step_kind_value"),
        logging_tags=loads_object(tags) if tags else None,
        event_specific_data=cast("EventSpecificData", received(data)) if data else None,
        message=event.get("message"),
        pid=event.get("pid"),
        step_key=event.get("step_key"),
    )


def _decode_error(error: Mapping[str, Any] | None) -> SerializableErrorInfo | None:
    if error is None:
        return None
    return SerializableErrorInfo(
        message=error["message"],
        stack=error["stack"],
        cls_name=error.get("cls_name"),
        cause=_decode_error(error.get("cause")),
    )
