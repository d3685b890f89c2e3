"""Calls on ``GraphQLEventLogStorage`` about assets, checks, partitions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from dagster import AssetCheckKey, AssetKey, DagsterEventType
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.event_log.base import AssetEntry
from dagster._core.storage.partition_status_cache import AssetStatusCacheValue
from dagster_shared.record import copy

from hpc_agent.conformance.case import CaseOf, StorageCase
from hpc_agent.conformance.event_cases import run_id
from hpc_agent.conformance.history import (
    ASSETS,
    BROKEN,
    DYNAMIC,
    NOT_EMPTY,
    ORDERS,
    PLAUSIBLE,
    SUMMARY,
    VISITS,
)
from hpc_agent.conformance.sides import Side

MATERIALIZATION = DagsterEventType.ASSET_MATERIALIZATION
TAG_KEYS = ["dagster/data_version"]
UNKNOWN = AssetKey("unknown")
POOL = "database"
_Case = partial(CaseOf, "events")


# -- records


def _asset_records(side: Side, keys: Sequence[AssetKey] | None = None) -> list[Any]:
    """Read records as user code finds them: where one lacks a thing, Dagster asks on."""
    records = side.events.get_asset_records(keys)
    if not side.events.asset_records_have_last_observation:
        records = [copy(each, asset_entry=_completed(side, each.asset_entry)) for each in records]
    return sorted(records, key=lambda record: record.asset_entry.asset_key.to_string())


def _completed(side: Side, entry: AssetEntry) -> AssetEntry:
    observed = side.events.fetch_observations(entry.asset_key, limit=1).records
    planned = side.events.get_latest_planned_materialization_info(entry.asset_key)
    return copy(
        entry,
        last_observation_record=observed[0] if observed else None,
        last_planned_materialization_storage_id=planned.storage_id if planned else None,
        last_planned_materialization_run_id=planned.run_id if planned else None,
    )


def _summaries(side: Side, **chosen: Any) -> list[object]:
    # A storage's column has microseconds, the event itself more.
    found = side.events.get_asset_event_summary_records(MATERIALIZATION, **chosen)
    return [copy(each, timestamp=round(each.timestamp, 3)) for each in found]


def _records() -> list[StorageCase]:
    records, latest = _Case("get_asset_records"), _Case("get_latest_materialization_events")
    has_key, summaries = _Case("has_asset_key"), _Case("get_asset_event_summary_records")
    return [
        _Case("all_asset_keys")("all", lambda side: sorted(side.events.all_asset_keys())),
        _Case("get_asset_keys")("with a prefix", lambda side: sorted(
            side.events.get_asset_keys(prefix=["shop"]))),
        has_key("yes", lambda side: side.events.has_asset_key(ORDERS)),
        has_key("no", lambda side: side.events.has_asset_key(UNKNOWN)),
        records("all", _asset_records),
        records("some", lambda side: _asset_records(side, [ORDERS, SUMMARY, BROKEN, UNKNOWN])),
        latest("of all", lambda side: {
            key: event for key, event in side.events.get_latest_materialization_events(
                list(ASSETS)).items() if event}),
        _Case("get_latest_materialization_storage_ids")("of two", lambda side:
            side.events.get_latest_materialization_storage_ids([ORDERS, SUMMARY])),
        summaries("of one", lambda side: _summaries(side, asset_key=ORDERS)),
        summaries("of a run", lambda side: _summaries(side, run_id=run_id(side))),
    ]  # fmt: skip


# -- checks


def _checks() -> list[StorageCase]:
    latest = _Case("get_latest_asset_check_execution_by_key")
    both, unknown = [NOT_EMPTY, PLAUSIBLE], AssetCheckKey(ORDERS, "unknown")
    return [
        _Case("get_asset_check_summary_records")("two", lambda side:
            side.events.get_asset_check_summary_records(both)),
        latest("two", lambda side: side.events.get_latest_asset_check_execution_by_key(both)),
        latest("none", lambda side: side.events.get_latest_asset_check_execution_by_key([])),
        latest("one that never ran", lambda side:
            side.events.get_latest_asset_check_execution_by_key([unknown])),
        latest("of a partition", lambda side:
            side.events.get_latest_asset_check_execution_by_key(
                [NOT_EMPTY], PartitionKeyFilter(key="b"))),
        latest("of no partition", lambda side:
            side.events.get_latest_asset_check_execution_by_key(
                both, PartitionKeyFilter(key=None))),
    ]  # fmt: skip


# -- partitions


def _latest_tags(side: Side, **options: Any) -> object:
    return side.events.get_latest_tags_by_partition(
        ORDERS, MATERIALIZATION, **{"tag_keys": TAG_KEYS, **options}
    )


def _unfinished(side: Side, key: AssetKey, after: int | None = None) -> object:
    find = side.events.get_latest_asset_partition_materialization_attempts_without_materializations
    return find(key, after)


def _partitions() -> list[StorageCase]:
    known, ids = _Case("get_materialized_partitions"), _Case("get_latest_storage_id_by_partition")
    tags, events = _Case("get_latest_tags_by_partition"), _Case("get_event_tags_for_asset")
    planned = _Case("get_latest_planned_materialization_info")
    attempts = _Case("get_latest_asset_partition_materialization_attempts_without_materializations")
    updated = _Case("get_updated_data_version_partitions")
    return [
        known("all", lambda side: side.events.get_materialized_partitions(ORDERS)),
        known("after a record", lambda side: side.events.get_materialized_partitions(
            ORDERS, after_cursor=20, before_cursor=1000)),
        ids("all", lambda side: side.events.get_latest_storage_id_by_partition(
            ORDERS, MATERIALIZATION)),
        ids("some", lambda side: side.events.get_latest_storage_id_by_partition(
            ORDERS, MATERIALIZATION, partitions={"a", "d"}, after_cursor=1)),
        tags("all", _latest_tags),
        tags("not indexed", lambda side: _latest_tags(side, tag_keys=["quality"]), refused=True),
        tags("some", lambda side: _latest_tags(
            side, asset_partitions=["a"], after_cursor=1, before_cursor=1000)),
        attempts("failed", lambda side: _unfinished(side, BROKEN)),
        attempts("after a record", lambda side: _unfinished(side, BROKEN, 10_000)),
        attempts("materialized", lambda side: _unfinished(side, ORDERS)),
        events("all", lambda side: side.events.get_event_tags_for_asset(ORDERS)),
        events("filtered", lambda side: side.events.get_event_tags_for_asset(
            ORDERS, filter_tags={"dagster/partition": "a"})),
        planned("of an asset", lambda side:
            side.events.get_latest_planned_materialization_info(SUMMARY)),
        planned("of a partition", lambda side:
            side.events.get_latest_planned_materialization_info(BROKEN, "b")),
        planned("never", lambda side:
            side.events.get_latest_planned_materialization_info(UNKNOWN)),
        updated("since the start", lambda side:
            side.events.get_updated_data_version_partitions(ORDERS, ["a", "b", "d"], 0)),
        updated("since now", lambda side:
            side.events.get_updated_data_version_partitions(ORDERS, ["a", "b"], 10_000)),
    ]  # fmt: skip


def _add_dynamic(side: Side) -> object:
    side.events.add_dynamic_partitions("colours", ["red", "green", "blue"])
    side.events.add_dynamic_partitions("colours", ["green", "yellow"])
    return side.events.get_dynamic_partitions("colours")


def _delete_dynamic(side: Side) -> object:
    side.events.delete_dynamic_partition("colours", "green")
    return side.events.get_dynamic_partitions("colours")


def _dynamic_pages(side: Side) -> list[object]:
    page = side.events.get_paginated_dynamic_partitions
    first = page(DYNAMIC, limit=2, ascending=True)
    rest = page(DYNAMIC, limit=2, ascending=True, cursor=first.cursor)
    return [first, rest, page(DYNAMIC, limit=2, ascending=False)]


def _dynamic_partitions() -> list[StorageCase]:
    has, existing = _Case("has_dynamic_partition"), _Case("get_existing_dynamic_partitions")
    return [
        _Case("get_dynamic_partitions")("all", lambda side:
            side.events.get_dynamic_partitions(DYNAMIC)),
        _Case("get_paginated_dynamic_partitions")("pages", _dynamic_pages),
        has("yes", lambda side: side.events.has_dynamic_partition(DYNAMIC, "grace")),
        has("no", lambda side: side.events.has_dynamic_partition(DYNAMIC, "nobody")),
        existing("some", lambda side: side.events.get_existing_dynamic_partitions(
            DYNAMIC, ["grace", "nobody"])),
        _Case("add_dynamic_partitions")("a known one again", _add_dynamic),
        _Case("delete_dynamic_partition")("one", _delete_dynamic),
    ]  # fmt: skip


# -- the status cache


def _cached(side: Side) -> object:
    record = side.events.get_asset_records([VISITS])[0]
    return record.asset_entry.cached_status


def _update_cache(side: Side) -> object:
    """Store a value: the client may not, but the agent API knows the call."""
    value = AssetStatusCacheValue(latest_storage_id=7, partitions_def_id="id",
                                  serialized_materialized_partition_subset="{}")  # fmt: skip
    if side.is_client:
        from dagster_cloud.storage.event_logs.queries import (
            UPDATE_ASSET_CACHED_STATUS_DATA_MUTATION,
        )

        client: Any = side.instance
        values = {"latestStorageId": 7, "partitionsDefId": "id",
                  "serializedMaterializedPartitionSubset": "{}"}  # fmt: skip
        client.graphql_client.execute(
            UPDATE_ASSET_CACHED_STATUS_DATA_MUTATION,
            {"assetKey": VISITS.to_string(), "cacheValues": values},
        )
    else:
        side.events.update_asset_cached_status_data(VISITS, value)
    return _cached(side)


def _wipe_cache(side: Side) -> object:
    side.events.wipe_asset_cached_status(VISITS)
    return _cached(side)


def _status_cache() -> list[StorageCase]:
    return [
        _Case("wipe_asset_cached_status")("after it was set", lambda side: [
            _update_cache(side), _wipe_cache(side)]),
    ]  # fmt: skip


# -- wipes


def _wipe_asset(side: Side) -> object:
    side.events.wipe_asset(SUMMARY)
    return [
        side.events.has_asset_key(SUMMARY), side.events.get_asset_records([SUMMARY]),
        side.events.get_latest_asset_check_execution_by_key([PLAUSIBLE]),
    ]  # fmt: skip


def _wipes() -> list[StorageCase]:
    return [
        _Case("wipe_asset")("with its checks", _wipe_asset),
        _Case("wipe_asset_partitions")("one", lambda side:
            side.events.wipe_asset_partitions(ORDERS, ["a"]), refused=True),
    ]  # fmt: skip


# -- pools


def _limit(side: Side, slots: int) -> object:
    side.events.set_concurrency_slots(POOL, slots)
    return side.events.get_pool_limits()


def _claim(side: Side, step: str, priority: int | None = None) -> object:
    return side.events.claim_concurrency_slot(POOL, run_id(side), step, priority)


def _check_claim(side: Side, step: str) -> object:
    return side.events.check_concurrency_claim(POOL, run_id(side), step)


def _free_step(side: Side) -> object:
    side.events.free_concurrency_slot_for_step(run_id(side), "first")
    return side.events.get_concurrency_info(POOL)


def _free_run(side: Side) -> object:
    side.events.free_concurrency_slots_for_run(run_id(side))
    return side.events.get_concurrency_info(POOL)


def _delete_limit(side: Side) -> object:
    side.events.delete_concurrency_limit(POOL)
    return side.events.get_concurrency_keys()


def _pools() -> list[StorageCase]:
    claim, check = _Case("claim_concurrency_slot"), _Case("check_concurrency_claim")
    set_slots, info = _Case("set_concurrency_slots"), _Case("get_concurrency_info")
    return [
        _Case("get_pool_config")("default", lambda side: side.events.get_pool_config()),
        _Case("initialize_concurrency_limit_to_default")("without one", lambda side:
            bool(side.events.initialize_concurrency_limit_to_default("new"))),
        set_slots("one", lambda side: _limit(side, 1)),
        set_slots("too many", lambda side: _limit(side, 1_000_000), refused=True),
        claim("first comes", lambda side: _claim(side, "first")),
        claim("second waits", lambda side: _claim(side, "second", 3)),
        check("has it", lambda side: _check_claim(side, "first")),
        check("waits", lambda side: _check_claim(side, "second")),
        check("never asked", lambda side: _check_claim(side, "third")),
        info("one claimed, one waiting", lambda side: side.events.get_concurrency_info(POOL)),
        info("unknown", lambda side: side.events.get_concurrency_info("unknown")),
        _Case("get_concurrency_infos")("one", lambda side:
            side.events.get_concurrency_infos([POOL])),
        _Case("free_concurrency_slot_for_step")("first ends", _free_step),
        claim("second gets it", lambda side: _claim(side, "second", 3)),
        _Case("free_concurrency_slots_for_run")("all", _free_run),
        _Case("get_concurrency_keys")("all", lambda side: side.events.get_concurrency_keys()),
        _Case("get_pool_limits")("all", lambda side: side.events.get_pool_limits()),
        _Case("delete_concurrency_limit")("the one", _delete_limit),
    ]  # fmt: skip


ASSET_CASES = [
    *_records(),
    *_checks(),
    *_partitions(),
    *_dynamic_partitions(),
    *_status_cache(),
    *_pools(),
    *_wipes(),
]
