"""Pages of events that Dagster's own storages do not give, though they hold them.

The stock client says of its storage that it can (``can_store_asset_failure_events``,
``supports_run_status_change_job_name_filter`` in dagster_cloud/storage/event_logs/storage.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from dagster import (
    AssetRecordsFilter,
    DagsterEventType,
    EventLogEntry,
    EventLogRecord,
    EventRecordsFilter,
    RunStatusChangeRecordsFilter,
)
from dagster._core.event_api import EventLogCursor, EventRecordsResult
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster_shared.serdes import deserialize_value

from hpc_agent.errors import ControlPlaneRefusedError


def failed_materializations(
    log: EventLogStorage,
    wanted: AssetRecordsFilter,
    limit: int,
    cursor: str | None,
    ascending: bool,
) -> EventRecordsResult:
    """Return what assets failed to be made of; OSS's ``fetch_failed_materializations`` is empty."""
    chosen = wanted.to_event_records_filter(
        DagsterEventType.ASSET_FAILED_TO_MATERIALIZE, cursor=cursor, ascending=ascending
    )
    return _page(log.get_event_records(chosen, limit, ascending), limit, cursor)


def status_changes(
    log: EventLogStorage,
    wanted: RunStatusChangeRecordsFilter,
    limit: int,
    cursor: str | None,
    ascending: bool,
) -> EventRecordsResult:
    """Return status changes, of some jobs alone where the filter names them.

    Raises ControlPlaneRefusedError where the storage cannot be asked.
    """
    if not wanted.job_names or log.supports_run_status_change_job_name_filter:
        return log.fetch_run_status_changes(wanted, limit, cursor, ascending)
    if not isinstance(log, SqlEventLogStorage):
        raise ControlPlaneRefusedError(
            f"{type(log).__name__} cannot tell the status changes of single jobs"
        )
    events = SqlEventLogStorageTable.c
    chosen = wanted.to_event_records_filter_without_job_names(cursor, ascending)
    query = (
        sa.select(events.id, events.event)
        .where(*_conditions(chosen), _of_jobs(wanted.job_names))
        .order_by(events.id.asc() if ascending else events.id.desc())
        .limit(limit)
    )
    with log.index_connection() as connection:
        rows = connection.execute(query).all()
    records = [EventLogRecord(number, deserialize_value(text, EventLogEntry))
               for number, text in rows]  # fmt: skip
    return _page(records, limit, cursor)


def _of_jobs(names: Sequence[str]) -> sa.ColumnElement[bool]:
    """Let the database look into the text: a sensor asks from its last match on, again and again.

    The name stands in no column. A quote within another field's value is escaped there, so this
    finds the field ``pipeline_name`` alone.
    """
    event = SqlEventLogStorageTable.c.event
    return sa.or_(
        *(event.contains(f'"pipeline_name": {json.dumps(name)}', autoescape=True) for name in names)
    )


def _conditions(chosen: EventRecordsFilter) -> list[sa.ColumnElement[bool]]:
    """Say in SQL what ``_apply_filter_to_query`` of SqlEventLogStorage does."""
    events = SqlEventLogStorageTable.c
    conditions = [events.dagster_event_type == chosen.event_type.value]
    if chosen.after_cursor is not None:
        conditions.append(events.id > chosen.after_cursor)
    if chosen.before_cursor is not None:
        conditions.append(events.id < chosen.before_cursor)
    if chosen.after_timestamp:
        conditions.append(events.timestamp > _stored(chosen.after_timestamp))
    if chosen.before_timestamp:
        conditions.append(events.timestamp < _stored(chosen.before_timestamp))
    if chosen.storage_ids:
        conditions.append(events.id.in_(chosen.storage_ids))
    return conditions


def _stored(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC).replace(tzinfo=None)


def _page(records: Sequence[EventLogRecord], limit: int, cursor: str | None) -> EventRecordsResult:
    last = records[-1].storage_id if records else -1
    following = EventLogCursor.from_storage_id(last).to_string()
    return EventRecordsResult(
        records,
        cursor=following if records or not cursor else cursor,
        has_more=len(records) == limit,
    )
