"""Storage ids of a run's events, where each run has a database of its own.

With SQLite an event of an asset has two ids: one among the events of its run, and one in the index
of all runs, by which every other query knows it. The stock client asks per run also for what it
compares with those (``get_asset_event_summary_records`` of Dagster's EventLogStorage).
"""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import UTC, datetime

import sqlalchemy as sa
from dagster import DagsterEventType, EventLogRecord
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log.base import EventLogConnection, EventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

_Sign = tuple[str | None, str | None, datetime]
"""Asset, partition and time of an event, as the columns have them."""


def with_known_ids(
    log: EventLogStorage,
    run_id: str,
    of_type: DagsterEventType,
    page: EventLogConnection,
    *,
    ascending: bool,
) -> EventLogConnection:
    """Give a run's events of one type the ids that other queries know; the cursor stays its own."""
    if not isinstance(log, SqlEventLogStorage) or not log.is_run_sharded:
        return page
    if of_type not in ASSET_EVENTS or not page.records:
        return page
    ids = _ids(log, run_id, of_type, ascending=ascending)
    return page._replace(records=[_known(record, ids[_sign(record)]) for record in page.records])


def _ids(
    log: SqlEventLogStorage, run_id: str, of_type: DagsterEventType, *, ascending: bool
) -> defaultdict[_Sign, deque[int]]:
    """Read the index in the order of the page: events that are alike are told apart by it."""
    events = SqlEventLogStorageTable.c
    query = (
        sa.select(events.id, events.asset_key, events.partition, events.timestamp)
        .where(events.run_id == run_id, events.dagster_event_type == of_type.value)
        .order_by(events.id.asc() if ascending else events.id.desc())
    )
    found = defaultdict[_Sign, deque[int]](deque)
    with log.index_connection() as connection:
        for number, asset_key, partition, timestamp in connection.execute(query):
            found[asset_key, partition, timestamp].append(number)
    return found


def _sign(record: EventLogRecord) -> _Sign:
    key = record.asset_key.to_string() if record.asset_key else None
    timestamp = datetime.fromtimestamp(record.timestamp, UTC).replace(tzinfo=None)
    return key, record.partition_key, timestamp


def _known(record: EventLogRecord, ids: deque[int]) -> EventLogRecord:
    """Take the next id; the index has forgotten the events of an asset that was wiped."""
    return record._replace(storage_id=ids.popleft()) if ids else record
