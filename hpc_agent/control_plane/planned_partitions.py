"""Partitions that runs were to make and did not, where one plan names many of them.

Code that makes a run itself, over the stock client, plans a range of partitions in one event
(``supports_partition_subset_in_asset_materialization_planned_events``). Dagster's own storages
know the partitions of plans for single ones only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa
from dagster import AssetKey, DagsterEventType, EventLogRecord, EventRecordsFilter
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

Attempt = tuple[str, int]
"""Run id, and storage id of the plan."""


def unfinished_attempts(
    log: EventLogStorage, key: AssetKey, after_storage_id: int | None
) -> Mapping[str, Attempt]:
    """Return the last plan of each partition that no materialization followed."""
    found = dict(
        log.get_latest_asset_partition_materialization_attempts_without_materializations(
            key, after_storage_id
        )
    )
    ranges = dict(_planned_in_ranges(log, key, after_storage_id))
    if not ranges:
        return found
    made = log.get_latest_storage_id_by_partition(
        key, DagsterEventType.ASSET_MATERIALIZATION, set(ranges)
    )
    for partition, attempt in ranges.items():
        latest = max(made.get(partition, 0), found.get(partition, attempt)[1])
        if latest <= attempt[1]:
            found[partition] = attempt
    return found


def _planned_in_ranges(
    log: EventLogStorage, key: AssetKey, after_storage_id: int | None
) -> Iterator[tuple[str, Attempt]]:
    """Yield each partition of each range, oldest first."""
    for record in _range_plans(log, key, after_storage_id):
        event = record.event_log_entry.dagster_event
        subset = event.partitions_subset if event else None
        for partition in subset.get_partition_keys() if subset else ():
            yield partition, (record.run_id, record.storage_id)


def _range_plans(
    log: EventLogStorage, key: AssetKey, after_storage_id: int | None
) -> Sequence[EventLogRecord]:
    if not isinstance(log, SqlEventLogStorage):
        return ()
    events, planned = SqlEventLogStorageTable.c, DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    query = sa.select(events.id).where(
        events.asset_key == key.to_string(),
        events.dagster_event_type == planned.value,
        events.partition.is_(None),
        events.id > (after_storage_id or 0),
    )
    with log.index_connection() as connection:
        ids = list(connection.scalars(query))
    if not ids:
        return ()
    chosen = EventRecordsFilter(event_type=planned, asset_key=key, storage_ids=ids)
    return log.get_event_records(chosen, ascending=True)
