"""Calls on ``GraphQLEventLogStorage`` that write and read events, and keep the log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetRecordsFilter,
    DagsterEventType,
    EventRecordsFilter,
)
from dagster._core.event_api import RunShardedEventsCursor
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster_cloud.storage.event_logs.queries import (
    STORE_EVENT_BATCH_MUTATION,
    STORE_EVENT_MUTATION,
)
from dagster_cloud.storage.event_logs.storage import _input_for_event
from dagster_shared.error import SerializableErrorInfo

from hpc_agent.conformance.case import CaseOf, StorageCase
from hpc_agent.conformance.history import BROKEN, ORDERS, SUMMARY, VISITS
from hpc_agent.conformance.plane import environment
from hpc_agent.conformance.sides import OVER_HTTP, Side

MATERIALIZATION = DagsterEventType.ASSET_MATERIALIZATION
PLANNED = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
MANY = 100
KEYED_RUN = "7a2f6a5e-0000-4000-8000-00000000000a"
_Case = partial(CaseOf, "events")


def run_id(side: Side, what: AssetKey | str = ORDERS) -> str:
    return side.history.run_of(what).run.run_id


# -- writing


def entry(run: str, text: str = "hello") -> EventLogEntry:
    cause = SerializableErrorInfo("inner", ["b\n"], "KeyError")
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=SerializableErrorInfo("outer", ["a\n"], "ValueError", cause), level=40,
        user_message=text, run_id=run, timestamp=1_700_000_000.25, step_key="do", job_name="work",
        dagster_event=None,
    )  # fmt: skip


def _runless_materialization(key: AssetKey) -> EventLogEntry:
    event = DagsterEvent(
        event_type_value=MATERIALIZATION.value, job_name="RUNLESS",
        event_specific_data=StepMaterializationData(AssetMaterialization(key, partition="late")),
    )  # fmt: skip
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None, level=20, user_message="", run_id="", timestamp=1_700_000_001.0,
        step_key=None, job_name="RUNLESS", dagster_event=event,
    )  # fmt: skip


def _messages(side: Side, run: str) -> list[str]:
    return [each.user_message for each in side.instance.all_logs(run)]


def _store_entries(side: Side, entries: Sequence[EventLogEntry]) -> None:
    if side.is_client:
        side.events.store_event_batch(entries)
    else:  # dagster-postgres takes no batch with a message of user code in it
        for each in entries:
            side.events.store_event(each)


def _store_over_http(side: Side) -> object:
    with environment(OVER_HTTP):
        side.events.store_event(entry("over-http"))
        _store_entries(side, [entry("over-http", str(number)) for number in range(3)])
    return _messages(side, "over-http")


def _store_runless(side: Side) -> object:
    side.events.store_event(_runless_materialization(AssetKey("runless")))
    return side.events.get_materialized_partitions(AssetKey("runless"))


def _store_batch(side: Side) -> object:
    _store_entries(side, [entry("batch", str(number)) for number in range(5)])
    return _messages(side, "batch")


def _keyed_twice(side: Side) -> object:
    """Send one write twice under one key, as a client does whose answer was lost."""
    if side.is_client:
        variables = {"eventRecord": _input_for_event(entry(KEYED_RUN))}
        _send_twice(side, STORE_EVENT_MUTATION, variables, "one")
    else:
        side.events.store_event(entry(KEYED_RUN))
    return _messages(side, KEYED_RUN)


def _keyed_batch_twice(side: Side) -> object:
    batch = [entry(KEYED_RUN, "first"), entry(KEYED_RUN, "second")]
    if side.is_client:
        variables = {"eventRecords": [_input_for_event(each) for each in batch]}
        _send_twice(side, STORE_EVENT_BATCH_MUTATION, variables, "batch")
    else:
        _store_entries(side, batch)
    return _messages(side, KEYED_RUN)


def _send_twice(side: Side, document: str, variables: dict[str, Any], key: str) -> None:
    client: Any = side.instance
    for _ in range(2):
        headers = {"Idempotency-Key": f"conformance-{key}-{KEYED_RUN}"}
        client.graphql_client.execute(document, variable_values=variables, headers=headers)


def _writes() -> list[StorageCase]:
    store, batch = _Case("store_event"), _Case("store_event_batch")
    return [
        store("over HTTP", _store_over_http),
        store("of no run", _store_runless),
        store("the same key twice", _keyed_twice),
        batch("five", _store_batch),
        batch("the same key twice", _keyed_batch_twice),
    ]


# -- reading the log of a run


def _second_page(side: Side) -> object:
    first = side.events.get_records_for_run(run_id(side), limit=5)
    second = side.events.get_records_for_run(run_id(side), cursor=first.cursor, limit=4)
    return [first.has_more, second.has_more, second.records]


def _backwards(side: Side) -> object:
    return side.events.get_records_for_run(run_id(side), limit=4, ascending=False).records


def _partitions_for_run(side: Side, of: AssetKey, *types: DagsterEventType) -> object:
    return side.events.get_asset_partitions_for_run(run_id(side, of), set(types) or None)


def _run_reads() -> list[StorageCase]:
    records, logs = _Case("get_records_for_run"), _Case("get_logs_for_run")
    partitions, keys = _Case("get_asset_partitions_for_run"), _Case("get_asset_keys_for_run")
    return [
        records("all", lambda side: side.events.get_records_for_run(run_id(side)).records),
        records("a second page", _second_page),
        records("backwards", _backwards),
        # Their ids are those of a run's own database on a plain SQLite, see run_events.py.
        logs("of one type", lambda side: side.events.get_logs_for_run(
            run_id(side), of_type=MATERIALIZATION)),
        records("of several types", lambda side: side.events.get_records_for_run(
            run_id(side, BROKEN),
            of_type={DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}).records),
        records("of no run", lambda side: side.events.get_records_for_run("nothing").records),
        logs("all", lambda side: side.events.get_logs_for_run(run_id(side, SUMMARY))),
        partitions("all", lambda side: _partitions_for_run(side, ORDERS)),
        partitions("unpartitioned", lambda side: _partitions_for_run(side, SUMMARY)),
        partitions("planned", lambda side: _partitions_for_run(side, ORDERS, PLANNED)),
        partitions("dynamic", lambda side: _partitions_for_run(side, VISITS, MATERIALIZATION)),
        keys("all", lambda side: side.events.get_asset_keys_for_run(run_id(side))),
        keys("materialized", lambda side: side.events.get_asset_keys_for_run(
            run_id(side, BROKEN), MATERIALIZATION)),
        _Case("get_stats_for_run")("succeeded", lambda side: side.events.get_stats_for_run(
            run_id(side, "reporting"))),
        _Case("get_stats_for_run")("failed", lambda side: side.events.get_stats_for_run(
            run_id(side, BROKEN))),
        *_step_stats(),
    ]  # fmt: skip


def _step_stats() -> list[StorageCase]:
    steps = _Case("get_step_stats_for_run")
    return [
        steps("expectations", lambda side: side.events.get_step_stats_for_run(
            run_id(side, "reporting"))),
        steps("materializations", lambda side: side.events.get_step_stats_for_run(run_id(side))),
        steps("failed", lambda side: side.events.get_step_stats_for_run(run_id(side, BROKEN))),
        steps("one step", lambda side: side.events.get_step_stats_for_run(
            run_id(side, "reporting"), ["count"])),
    ]  # fmt: skip


# -- reading across runs


def _changes(side: Side, records_filter: object, **options: Any) -> object:
    return side.events.fetch_run_status_changes(records_filter, **{"limit": MANY, **options})


def _change_pages(side: Side) -> list[object]:
    first = side.events.fetch_run_status_changes(DagsterEventType.RUN_SUCCESS, 2)
    return [first, side.events.fetch_run_status_changes(
        DagsterEventType.RUN_SUCCESS, 3, cursor=first.cursor)]  # fmt: skip


def _records(side: Side, limit: int | None = None, ascending: bool = False, **of: Any) -> object:
    chosen = EventRecordsFilter(**{"event_type": MATERIALIZATION, "asset_key": ORDERS, **of})
    return side.events.get_event_records(chosen, limit=limit, ascending=ascending)


def _log_reads() -> list[StorageCase]:
    records, changes = _Case("get_event_records"), _Case("fetch_run_status_changes")
    sharded = RunShardedEventsCursor(id=3, run_updated_after=datetime(2020, 1, 1, tzinfo=UTC))
    return [
        _Case("get_maximum_record_id")("after all of that", lambda side:
            side.events.get_maximum_record_id()),
        records("of an asset", _records),
        records("of two partitions, ascending", lambda side: _records(
            side, limit=2, ascending=True, asset_partitions=["a", "b"])),
        records("after and before", lambda side: _records(
            side, after_cursor=5, before_cursor=60)),
        records("in a span of time", lambda side: _records(
            side, after_timestamp=1.0, before_timestamp=time.time() + 3600)),
        records("with a cursor of SQLite's", lambda side: _records(side, after_cursor=sharded)),
        records("by storage id", lambda side: _records(side, storage_ids=list(range(60)))),
        changes("succeeded", lambda side: _changes(side, DagsterEventType.RUN_SUCCESS)),
        changes("two pages", _change_pages),
        changes("ascending", lambda side: _changes(
            side, DagsterEventType.RUN_START, limit=2, ascending=True)),
    ]  # fmt: skip


# -- paging through an asset's events


def _fetch(side: Side, kind: str, of: AssetKey | AssetRecordsFilter, **options: Any) -> object:
    # Plain storages have no fetch_planned_materializations: their instance does that.
    is_instance = kind == "fetch_planned_materializations" and not side.is_client
    target: Any = side.instance if is_instance else side.events
    return getattr(target, kind)(of, **{"limit": MANY, **options})


def _asset_pages(side: Side, kind: str) -> list[object]:
    # Given a bare key, DagsterInstance.fetch_planned_materializations ignores its cursor.
    of = AssetRecordsFilter(asset_key=ORDERS)
    first: Any = _fetch(side, kind, of, limit=2)
    return [first, _fetch(side, kind, of, limit=2, cursor=first.cursor)]


def _asset_reads(kind: str, key: AssetKey) -> list[StorageCase]:
    case = _Case(kind)
    filtered = AssetRecordsFilter(
        asset_key=ORDERS, asset_partitions=["a"], after_storage_id=1, before_storage_id=10_000,
        after_timestamp=1.0, before_timestamp=time.time() + 3600,
    )  # fmt: skip
    by_id = AssetRecordsFilter(asset_key=ORDERS, storage_ids=list(range(40)))
    return [
        case("all", lambda side: _fetch(side, kind, key)),
        case("ascending", lambda side: _fetch(side, kind, key, limit=2, ascending=True)),
        case("two pages", lambda side: _asset_pages(side, kind)),
        case("filtered", lambda side: _fetch(side, kind, filtered)),
        case("by storage id", lambda side: _fetch(side, kind, by_id)),
    ]


# -- the log itself


def _enable_index(side: Side) -> object:
    arguments = ("conformance_index", "unused") if side.is_client else ("conformance_index",)
    side.events.enable_secondary_index(*arguments)
    return "enabled"


def _done(side: Side, method: str) -> object:
    getattr(side.events, method)()
    return side.events.get_maximum_record_id()


def _delete(side: Side) -> object:
    side.events.delete_events(run_id(side, "reporting"))
    return side.instance.all_logs(run_id(side, "reporting"))


def _wipe(side: Side) -> object:
    side.events.wipe()
    return [
        side.events.all_asset_keys(), side.instance.all_logs(run_id(side)),
        side.events.get_dynamic_partitions("customers"),
    ]  # fmt: skip


def _upkeep() -> list[StorageCase]:
    return [
        _Case("upgrade")("nothing to do", lambda side: _done(side, "upgrade")),
        _Case("reindex_assets")("nothing to do", lambda side: _done(side, "reindex_assets")),
        _Case("reindex_events")("nothing to do", lambda side: _done(side, "reindex_events")),
        _Case("enable_secondary_index")("one of ours", _enable_index),
        _Case("delete_events")("of a run", _delete),
        _Case("is_persistent")("told", lambda side: side.events.is_persistent),
        _Case("is_asset_aware")("told", lambda side: getattr(side.events, "is_asset_aware", True)),
    ]


EVENT_CASES = [
    *_writes(),
    *_run_reads(),
    *_log_reads(),
    *_asset_reads("fetch_materializations", ORDERS),
    *_asset_reads("fetch_observations", SUMMARY),
    *_asset_reads("fetch_planned_materializations", BROKEN),
    *_upkeep(),
]

LAST_CASES = [_Case("wipe")("everything", _wipe)]
"""What leaves nothing for others to read."""
