"""Event writes that broke off: what of an event is there, and the rest of it.

Dagster stores an event in several transactions: its row; for assets, checks and changes of a run's
status what is known of these across runs, in SQLite beside a second row in a file of its own; then
the status of the run, which may be another file again (``store_event`` of
dagster/_core/storage/event_log/sqlite/sqlite_event_log.py and of
dagster_postgres/event_log/event_log.py, ``handle_new_event`` of
dagster/_core/instance/methods/event_methods.py). Whatever breaks off in between, an event that has
its row is stored for whoever looks for it, and nothing else of it need be.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import sqlalchemy as sa
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    RunFailureReason,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG, WILL_RETRY_TAG
from dagster._time import datetime_from_timestamp
from dagster_shared import check
from dagster_shared.serdes import serialize_value

_OF_STATUS = frozenset(EVENT_TYPE_TO_PIPELINE_RUN_STATUS)
_INDEXED = _OF_STATUS | frozenset(ASSET_EVENTS) | frozenset(ASSET_CHECK_EVENTS)


def complete(instance: DagsterInstance, entry: EventLogEntry) -> bool:
    """Do what is missing of an event that may have been stored; False when it was not.

    To be called by one at a time for the same event.
    """
    log = cast("SqlEventLogStorage", instance.event_log_storage)
    with log.run_connection(entry.run_id) as connection:
        row = connection.scalar(_row_of(entry))
    if row is None:
        return False
    kind = entry.dagster_event_type
    if kind in _INDEXED and log.is_run_sharded:
        row = _indexed(log, entry)
    if kind in ASSET_EVENTS and entry.get_dagster_event().asset_key is not None:
        if not _has_tags(log, row):
            log.store_asset_event_tags([entry], [row])
        if not _knows_asset(log, entry, row):
            log.store_asset_event(entry, row)
    if kind in ASSET_CHECK_EVENTS and not _knows_check(log, entry):
        log.store_asset_check_event(entry, row)
    if kind in _OF_STATUS:
        _complete_status(instance, entry)
    return True


def newest_of(
    instance: DagsterInstance, run_id: str, kinds: set[DagsterEventType]
) -> EventLogEntry | None:
    """Return the event of these kinds that a run's log got last."""
    found = instance.event_log_storage.get_records_for_run(
        run_id, of_type=kinds, limit=1, ascending=False
    )
    return found.records[0].event_log_entry if found.records else None


def set_status(instance: DagsterInstance, entry: EventLogEntry) -> None:
    """Let a run have the status that an event of it gives."""
    instance.run_storage.handle_run_event(
        entry.run_id, entry.get_dagster_event(), datetime_from_timestamp(entry.timestamp)
    )


def _row_of(entry: EventLogEntry) -> sa.Select[tuple[int]]:
    table = SqlEventLogStorageTable.c
    same = (table.run_id == entry.run_id, table.event == serialize_value(entry))
    return sa.select(table.id).where(*same).order_by(table.id).limit(1)


def _indexed(log: SqlEventLogStorage, entry: EventLogEntry) -> int:
    """Return the row of an event in the file across runs, made if it was not there."""
    with log.index_connection() as connection:
        row = connection.scalar(_row_of(entry))
        if row is None:
            inserted = connection.execute(log.prepare_insert_event(entry))
            row = inserted.inserted_primary_key[0]  # type: ignore[index]
        return int(row)


def _has_tags(log: SqlEventLogStorage, row: int) -> bool:
    table = AssetEventTagsTable.c
    query = sa.select(table.event_id).where(table.event_id == row).limit(1)
    with log.index_connection() as connection:
        return connection.scalar(query) is not None


def _knows_asset(log: SqlEventLogStorage, entry: EventLogEntry, row: int) -> bool:
    """Whether this event of an asset, or a later one of its kind, has reached the catalogue."""
    key = entry.get_dagster_event().asset_key
    if entry.dagster_event_type is DagsterEventType.ASSET_MATERIALIZATION:
        known = next(iter(log.get_asset_records([check.not_none(key)])), None)
        last = known.asset_entry.last_materialization_record if known is not None else None
        return last is not None and last.storage_id >= row
    table = AssetKeyTable.c
    query = sa.select(table.last_materialization_timestamp).where(
        table.asset_key == check.not_none(key).to_string()
    )
    with log.index_connection() as connection:
        moment: datetime | None = connection.scalar(query)
    if moment is None:
        return False
    # As it was written: no float compares with it.
    written = datetime_from_timestamp(entry.timestamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) >= written


def _knows_check(log: SqlEventLogStorage, entry: EventLogEntry) -> bool:
    """Whether its own row is there; not every release of Dagster names the event's in it."""
    table = AssetCheckExecutionsTable.c
    same = (table.run_id == entry.run_id, table.evaluation_event == serialize_value(entry))
    with log.index_connection() as connection:
        return connection.scalar(sa.select(table.id).where(*same).limit(1)) is not None


def _complete_status(instance: DagsterInstance, entry: EventLogEntry) -> None:
    """Set the status of its run, unless that has changed since."""
    if newest_of(instance, entry.run_id, set(_OF_STATUS)) != entry:
        return
    set_status(instance, entry)
    run = instance.get_run_by_id(entry.run_id)
    if run is None or run.status is not DagsterRunStatus.FAILURE:
        return
    if not instance.run_retries_enabled or WILL_RETRY_TAG in run.tags:
        return
    reason = run.tags.get(RUN_FAILURE_REASON_TAG)
    will_retry = auto_reexecution_should_retry_run(
        instance, run, RunFailureReason(reason) if reason else None
    )
    instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: str(will_retry).lower()})
