"""The last observation and the last planned materialization of assets.

Dagster's own storages keep neither with an asset. The stock client says that its storage does
(``asset_records_have_last_observation`` in dagster_cloud/storage/event_logs/storage.py), and
whoever believes it never looks for them elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from dagster import DagsterEventType, EventLogRecord, EventRecordsFilter
from dagster._core.storage.event_log.base import AssetEntry, AssetRecord, EventLogStorage
from dagster._core.storage.event_log.schema import AssetKeyTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster_shared.record import copy

from hpc_agent.errors import ControlPlaneRefusedError

_AT_ONCE = 500
"""Assets in one statement; SQLite before 3.32 takes 999 values (sqlite.org/limits.html)."""

OBSERVATION = DagsterEventType.ASSET_OBSERVATION
PLANNED = DagsterEventType.ASSET_MATERIALIZATION_PLANNED


@dataclass(frozen=True, slots=True)
class _Latest:
    """Storage ids of an asset's latest events, wiped ones included."""

    observation: int | None
    planned: int | None


def with_history(log: EventLogStorage, records: Sequence[AssetRecord]) -> list[AssetRecord]:
    """Add the last observation and plan to asset records, in a few statements for all of them.

    Raises ControlPlaneRefusedError where the storage cannot be asked.
    """
    if (
        log.asset_records_have_last_observation
        and log.asset_records_have_last_planned_and_failed_materializations
    ):
        return list(records)
    if not isinstance(log, SqlEventLogStorage):
        raise ControlPlaneRefusedError(
            f"{type(log).__name__} cannot tell the last observation of an asset"
        )
    slices = (records[start : start + _AT_ONCE] for start in range(0, len(records), _AT_ONCE))
    return [each for some in slices for each in _with_history(log, some)]


def _with_history(log: SqlEventLogStorage, records: Sequence[AssetRecord]) -> list[AssetRecord]:
    found = _latest(log, [record.asset_entry.asset_key.to_string() for record in records])
    observations = _records(log, OBSERVATION, [each.observation for each in found.values()])
    plans = _records(log, PLANNED, [each.planned for each in found.values()])
    return [
        copy(record, asset_entry=_entry(record.asset_entry, latest, observations, plans))
        if (latest := found.get(record.asset_entry.asset_key.to_string()))
        else record
        for record in records
    ]


def _entry(
    entry: AssetEntry,
    latest: _Latest,
    observations: Mapping[int | None, EventLogRecord],
    plans: Mapping[int | None, EventLogRecord],
) -> AssetEntry:
    observed = _unless_wiped(observations.get(latest.observation), entry)
    planned = _unless_wiped(plans.get(latest.planned), entry)
    return copy(
        entry,
        last_observation_record=observed,
        last_planned_materialization_storage_id=planned.storage_id if planned else None,
        last_planned_materialization_run_id=planned.run_id if planned else None,
    )


def _unless_wiped(record: EventLogRecord | None, entry: AssetEntry) -> EventLogRecord | None:
    wiped = entry.asset_details.last_wipe_timestamp if entry.asset_details else None
    return None if record and wiped and record.timestamp <= wiped else record


def _latest(log: SqlEventLogStorage, keys: Sequence[str]) -> dict[str, _Latest]:
    """Look up ids one by one within a statement: each is one step down the index by asset."""
    query = sa.select(
        AssetKeyTable.c.asset_key, _latest_id(OBSERVATION), _latest_id(PLANNED)
    ).where(AssetKeyTable.c.asset_key.in_(keys))
    with log.index_connection() as connection:
        return {
            key: _Latest(observation, planned)
            for key, observation, planned in connection.execute(query)
        }


def _latest_id(event_type: DagsterEventType) -> sa.ScalarSelect[int]:
    events = SqlEventLogStorageTable.c
    return (
        sa.select(sa.func.max(events.id))
        .where(events.asset_key == AssetKeyTable.c.asset_key)
        .where(events.dagster_event_type == event_type.value)
        .scalar_subquery()
    )


def _records(
    log: SqlEventLogStorage, event_type: DagsterEventType, ids: Sequence[int | None]
) -> dict[int | None, EventLogRecord]:
    known = [each for each in ids if each is not None]
    if not known:
        return {}
    chosen = EventRecordsFilter(event_type=event_type, storage_ids=known)
    return {record.storage_id: record for record in log.get_event_records(chosen)}
