"""Storage ids of a run's events, where each run has a database of its own.

With SQLite an event of an asset has two ids: one among the events of its run, and one in the index
of all runs, by which every other query knows it. The stock client asks per run also for what it
compares with those (``get_asset_event_summary_records`` of Dagster's EventLogStorage).
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import cast

from dagster import AssetKey, DagsterEventType, EventLogRecord
from dagster._core.event_api import AssetEventType
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log.base import EventLogConnection, EventLogStorage
from dagster._time import datetime_from_timestamp

_Sign = tuple[AssetKey | None, str | None, float]


def with_known_ids(
    log: EventLogStorage,
    run_id: str,
    of_type: DagsterEventType,
    page: EventLogConnection,
    *,
    ascending: bool,
) -> EventLogConnection:
    """Give a run's events of one type the ids that other queries know; the cursor stays its own."""
    if not log.is_run_sharded or of_type not in ASSET_EVENTS or not page.records:
        return page
    ids = defaultdict[_Sign, deque[int]](deque)
    asked = cast("AssetEventType", of_type)
    for row in log.get_asset_event_summary_records(asked, run_id=run_id, ascending=ascending):
        ids[row.asset_key, row.partition, row.timestamp].append(row.storage_id)
    return page._replace(records=[_known(record, ids[_sign(record)]) for record in page.records])


def _sign(record: EventLogRecord) -> _Sign:
    # As a column has it: in microseconds.
    timestamp = datetime_from_timestamp(record.timestamp).timestamp()
    return record.asset_key, record.partition_key, timestamp


def _known(record: EventLogRecord, ids: deque[int]) -> EventLogRecord:
    """Take the next id; the index has forgotten the events of an asset that was wiped."""
    return record._replace(storage_id=ids.popleft()) if ids else record
