"""Filters and keys as the stock client sends them, turned into Dagster's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    DagsterRunStatus,
    EventRecordsFilter,
    RunsFilter,
    RunStatusChangeRecordsFilter,
)
from dagster._core.event_api import RunShardedEventsCursor, RunStatusChangeEventType
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.dagster_run import JobBucket, TagBucket

from hpc_agent.errors import ControlPlaneRefusedError

Input = Mapping[str, Any]


def asset_key(text: str) -> AssetKey:
    key = AssetKey.from_db_string(text)
    if key is None:
        raise ControlPlaneRefusedError(f"not an asset key: {text[:200]!r}")
    return key


def runs_filter(given: Input | None) -> RunsFilter | None:
    if given is None:
        return None
    statuses = [DagsterRunStatus(status) for status in given.get("statuses") or []]
    return RunsFilter(
        run_ids=given.get("run_ids"),
        job_name=given.get("pipeline_name"),
        statuses=statuses,
        tags=tags_filter(given.get("tags")),
        snapshot_id=given.get("snapshot_id"),
        updated_after=_time(given.get("updated_after")),
        updated_before=_time(given.get("updated_before")),
        created_after=_time(given.get("created_after")),
        created_before=_time(given.get("created_before")),
    )


def tags_filter(given: Sequence[Input] | None) -> dict[str, str | list[str]]:
    return {
        tag["key"]: tag["value"] if tag.get("value") is not None else list(tag.get("values") or [])
        for tag in given or ()
    }


def bucket(given: Input | None) -> JobBucket | TagBucket | None:
    if given is None:
        return None
    if given["bucket_type"] == "job":
        return JobBucket(job_names=given["values"], bucket_limit=given.get("bucket_limit"))
    return TagBucket(
        tag_key=given["tag_key"], tag_values=given["values"],
        bucket_limit=given.get("bucket_limit"),
    )  # fmt: skip


def backfills_filter(given: Input | None) -> BulkActionsFilter | None:
    if given is None:
        return None
    statuses = given.get("statuses")
    return BulkActionsFilter(
        statuses=[BulkActionStatus(status) for status in statuses] if statuses else None,
        created_after=_time(given.get("created_after")),
        created_before=_time(given.get("created_before")),
        selector_id=given.get("selector_id"),
    )


def event_records_filter(given: Input | None) -> EventRecordsFilter | None:
    if given is None:
        return None
    after, updated = given.get("after_cursor"), given.get("run_updated_after")
    if after is not None and updated is not None:
        after = RunShardedEventsCursor(id=after, run_updated_after=_require_time(updated))
    key = given.get("asset_key")
    return EventRecordsFilter(
        event_type=DagsterEventType(given["event_type"]),
        asset_key=asset_key(key) if key else None,
        asset_partitions=given.get("asset_partitions"),
        after_cursor=after,
        before_cursor=given.get("before_cursor"),
        after_timestamp=given.get("after_timestamp"),
        before_timestamp=given.get("before_timestamp"),
        storage_ids=given.get("storage_ids"),
    )


def asset_records_filter(given: Input) -> AssetRecordsFilter:
    return AssetRecordsFilter(
        asset_key=asset_key(given["asset_key"]),
        asset_partitions=given.get("asset_partitions"),
        after_timestamp=given.get("after_timestamp"),
        before_timestamp=given.get("before_timestamp"),
        after_storage_id=given.get("after_storage_id"),
        before_storage_id=given.get("before_storage_id"),
        storage_ids=given.get("storage_ids"),
    )


def status_changes_filter(given: Input) -> RunStatusChangeRecordsFilter:
    return RunStatusChangeRecordsFilter(
        event_type=cast("RunStatusChangeEventType", DagsterEventType(given["event_type"])),
        after_timestamp=given.get("after_timestamp"),
        before_timestamp=given.get("before_timestamp"),
        after_storage_id=given.get("after_storage_id"),
        before_storage_id=given.get("before_storage_id"),
        storage_ids=given.get("storage_ids"),
        job_names=given.get("job_names"),
    )


def event_types(names: Sequence[str] | None) -> set[DagsterEventType] | None:
    return {DagsterEventType(name) for name in names} if names else None


def _time(timestamp: float | None) -> datetime | None:
    return None if timestamp is None else _require_time(timestamp)


def _require_time(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=UTC)
