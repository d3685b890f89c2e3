"""Asset and asset check records, materialized partitions, dynamic partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ariadne import ObjectType
from dagster import AssetCheckKey, AssetKey, DagsterEventType
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.event_log.base import (
    AssetCheckSummaryRecord,
    AssetRecord,
    PlannedMaterializationInfo,
)
from dagster._core.types.pagination import PaginatedResults
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.asset_history import with_history
from hpc_agent.control_plane.graphql.context import OK
from hpc_agent.control_plane.graphql.event_logs import event_log_mutations, event_logs, storage
from hpc_agent.control_plane.graphql.filters import Input, asset_key
from hpc_agent.control_plane.planned_partitions import unfinished_attempts

check_record = ObjectType("AssetCheckExecutionRecord")
bindables = [check_record]


@event_logs.field("hasAssetKey")
def has_asset_key(_: object, info: GraphQLResolveInfo, asset_key: str) -> bool:
    return storage(info).has_asset_key(_key(asset_key))


@event_logs.field("getAllAssetKeys")
def get_all_asset_keys(_: object, info: GraphQLResolveInfo) -> list[str]:
    return [key.to_string() for key in storage(info).all_asset_keys()]


@event_logs.field("getLatestMaterializationEvents")
def get_latest_materialization_events(
    _: object, info: GraphQLResolveInfo, asset_keys: Sequence[str]
) -> list[EventLogEntry]:
    found = storage(info).get_latest_materialization_events(_keys(asset_keys))
    return [entry for entry in found.values() if entry is not None]


@event_logs.field("getAssetRecords")
def get_asset_records(
    _: object, info: GraphQLResolveInfo, asset_keys: Sequence[str] | None = None
) -> Sequence[AssetRecord]:
    log = storage(info)
    return with_history(log, log.get_asset_records(_keys(asset_keys) if asset_keys else None))


@event_logs.field("getAssetCheckSummaryRecord")
def get_asset_check_summary_records(
    _: object, info: GraphQLResolveInfo, asset_check_keys: Sequence[str] | None = None
) -> list[AssetCheckSummaryRecord]:
    found = storage(info).get_asset_check_summary_records(_check_keys(asset_check_keys))
    return list(found.values())


@event_logs.field("getLatestAssetCheckExecutionByKey")
def get_latest_asset_check_executions(
    _: object,
    info: GraphQLResolveInfo,
    *,
    asset_check_keys: Sequence[str],
    partition_filter: Input | None = None,
) -> list[AssetCheckExecutionRecord]:
    chosen = PartitionKeyFilter(key=partition_filter.get("key")) if partition_filter else None
    found = storage(info).get_latest_asset_check_execution_by_key(
        _check_keys(asset_check_keys), chosen
    )
    return list(found.values())


@check_record.field("assetCheckKey")
def check_record_key(record: AssetCheckExecutionRecord, _info: GraphQLResolveInfo) -> AssetCheckKey:
    return record.key


@check_record.field("status")
def check_record_status(record: AssetCheckExecutionRecord, _info: GraphQLResolveInfo) -> str:
    return record.status.value


@event_logs.field("getMaterializedPartitions")
def get_materialized_partitions(
    _: object,
    info: GraphQLResolveInfo,
    *,
    asset_key: str,
    before_cursor: int | None = None,
    after_cursor: int | None = None,
) -> list[str]:
    found = storage(info).get_materialized_partitions(_key(asset_key), before_cursor, after_cursor)
    return sorted(found)


@event_logs.field("getMaterializationCountByPartition")
def get_materialization_count_by_partition(
    _: object, info: GraphQLResolveInfo, asset_keys: Sequence[str], after_cursor: int | None = None
) -> list[dict[str, Any]]:
    # The storage of current Dagster has no such count any more; agents of old releases ask for it.
    result = []
    for key in _keys(asset_keys):
        partitions = storage(info).get_materialized_partitions(key, after_cursor=after_cursor)
        counts = [
            {"partition": partition, "materialization_count": 1} for partition in sorted(partitions)
        ]
        result.append({"asset_key": key.to_string(), "materialization_count_by_partition": counts})
    return result


@event_logs.field("getLatestStorageIdByPartition")
def get_latest_storage_id_by_partition(
    _: object,
    info: GraphQLResolveInfo,
    *,
    asset_key: str,
    event_type: str,
    partitions: Sequence[str] | None = None,
    after_cursor: int | None = None,
) -> list[dict[str, Any]]:
    found = storage(info).get_latest_storage_id_by_partition(
        _key(asset_key), DagsterEventType(event_type), set(partitions) if partitions else None,
        after_cursor,
    )  # fmt: skip
    return [{"partition": partition, "storage_id": number} for partition, number in found.items()]


@event_logs.field("getLatestTagsByPartition")
def get_latest_tags_by_partition(
    _: object,
    info: GraphQLResolveInfo,
    *,
    asset_key: str,
    event_type: str,
    tag_keys: Sequence[str] | None = None,
    asset_partitions: Sequence[str] | None = None,
    before_cursor: int | None = None,
    after_cursor: int | None = None,
) -> list[dict[str, str]]:
    found = storage(info).get_latest_tags_by_partition(
        _key(asset_key), DagsterEventType(event_type), tag_keys or [], asset_partitions,
        before_cursor, after_cursor,
    )  # fmt: skip
    return [
        {"partition": partition, "key": key, "value": value}
        for partition, tags in found.items()
        for key, value in tags.items()
    ]


@event_logs.field("getLatestAssetPartitionMaterializationAttemptsWithoutMaterializations")
def get_unfinished_materialization_attempts(
    _: object, info: GraphQLResolveInfo, asset_key: str, after_storage_id: int | None = None
) -> Mapping[str, tuple[str, int]]:
    return unfinished_attempts(storage(info), _key(asset_key), after_storage_id)


@event_logs.field("getAssetEventTags")
def get_asset_event_tags(
    _: object,
    info: GraphQLResolveInfo,
    *,
    asset_key: str,
    filter_tags: Sequence[Input] | None = None,
    filter_event_id: int | None = None,
) -> list[dict[str, Any]]:
    tags = {tag["key"]: tag["value"] for tag in filter_tags or ()}
    found = storage(info).get_event_tags_for_asset(_key(asset_key), tags or None, filter_event_id)
    return [
        {"tags": [{"key": key, "value": value} for key, value in event.items()]} for event in found
    ]


@event_logs.field("getLatestPlannedMaterializationInfo")
def get_latest_planned_materialization_info(
    _: object, info: GraphQLResolveInfo, asset_key: str, partition: str | None = None
) -> PlannedMaterializationInfo | dict[str, None]:
    found = storage(info).get_latest_planned_materialization_info(_key(asset_key), partition)
    return found or {"storage_id": None, "run_id": None}


@event_logs.field("getUpdatedDataVersionPartitions")
def get_updated_data_version_partitions(
    _: object,
    info: GraphQLResolveInfo,
    *,
    asset_key: str,
    partitions: Sequence[str],
    after_storage_id: int,
) -> list[str]:
    found = storage(info).get_updated_data_version_partitions(
        _key(asset_key), partitions, after_storage_id
    )
    return sorted(found)


@event_logs.field("getDynamicPartitions")
def get_dynamic_partitions(
    _: object, info: GraphQLResolveInfo, partitions_def_name: str
) -> Sequence[str]:
    return storage(info).get_dynamic_partitions(partitions_def_name)


@event_logs.field("getPaginatedDynamicPartitions")
def get_paginated_dynamic_partitions(
    _: object,
    info: GraphQLResolveInfo,
    *,
    partitions_def_name: str,
    limit: int,
    ascending: bool,
    cursor: str | None = None,
) -> PaginatedResults[str]:
    return storage(info).get_paginated_dynamic_partitions(
        partitions_def_name, limit, ascending, cursor
    )


@event_logs.field("hasDynamicPartition")
def has_dynamic_partition(
    _: object, info: GraphQLResolveInfo, partitions_def_name: str, partition_key: str
) -> bool:
    return storage(info).has_dynamic_partition(partitions_def_name, partition_key)


@event_log_mutations.field("AddDynamicPartitions")
def add_dynamic_partitions(
    _: object, info: GraphQLResolveInfo, partitions_def_name: str, partition_keys: Sequence[str]
) -> dict[str, bool]:
    storage(info).add_dynamic_partitions(partitions_def_name, partition_keys)
    return OK


@event_log_mutations.field("DeleteDynamicPartition")
def delete_dynamic_partition(
    _: object, info: GraphQLResolveInfo, partitions_def_name: str, partition_key: str
) -> dict[str, bool]:
    storage(info).delete_dynamic_partition(partitions_def_name, partition_key)
    return OK


def _key(text: str) -> AssetKey:
    return asset_key(text)


def _keys(texts: Sequence[str]) -> list[AssetKey]:
    return [asset_key(text) for text in texts]


def _check_keys(texts: Sequence[str] | None) -> list[AssetCheckKey]:
    return [AssetCheckKey.from_user_string(text) for text in texts or ()]
