"""What the stock client promises of its storage and Dagster's own storages do not do.

The client answers ``can_…`` and ``supports_…`` from its own code, and Dagster then relies on it: so
the gateway has to. Here a plain instance shows what comes of the same work done its own way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    RunStatusChangeRecordsFilter,
    StaticPartitionsDefinition,
)
from dagster._core.definitions.events import (
    AssetMaterializationFailure,
    AssetMaterializationFailureReason,
    AssetMaterializationFailureType,
)
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent
from dagster._core.events.log import EventLogEntry

from hpc_agent.conformance.case import CaseOf, StorageCase
from hpc_agent.conformance.event_cases import run_id
from hpc_agent.conformance.history import BROKEN, PARTITIONS
from hpc_agent.conformance.sides import Side

PLANNED = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
MANY = 100
_Case = partial(CaseOf, "events")

PROMISES: Mapping[str, str] = {
    "events.asset_records_have_last_observation": "events.get_asset_records",
    "events.asset_records_have_last_planned_and_failed_materializations":
        "events.get_asset_records",
    "events.can_read_asset_status_cache": "events.wipe_asset_cached_status",
    "events.can_store_asset_failure_events": "events.fetch_failed_materializations",
    "events.handles_run_events_in_store_event": "events.store_event",
    "events.supports_global_concurrency_limits": "events.claim_concurrency_slot",
    "events.supports_partition_subset_in_asset_materialization_planned_events":
        "events.get_latest_asset_partition_materialization_attempts_without_materializations",
    "events.supports_run_status_change_job_name_filter": "events.fetch_run_status_changes",
    "runs.supports_run_telemetry": "runs.add_run_telemetry",
}  # fmt: skip
"""What the client says of us, and the method whose cases show that it is so."""


def _entry(run: str, event: DagsterEvent) -> EventLogEntry:
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None, level=10, user_message="", run_id=run, timestamp=time.time(),
        step_key=None, job_name="work", dagster_event=event,
    )  # fmt: skip


# -- run status changes


def _changes(side: Side, names: Sequence[str], **options: Any) -> object:
    """Ask for the failures of some jobs; a plain SQL storage cannot, so that callers look."""
    known = side.events.supports_run_status_change_job_name_filter
    chosen = RunStatusChangeRecordsFilter(
        event_type=DagsterEventType.RUN_FAILURE, job_names=list(names) if known else None,
        after_storage_id=1, after_timestamp=1.0, before_timestamp=time.time() + 3600,
    )  # fmt: skip
    found = side.events.fetch_run_status_changes(chosen, **{"limit": MANY, **options})
    return [each for each in found.records if each.event_log_entry.job_name in names]


def _pages(side: Side) -> list[object]:
    """Read one by one what there is: each page has one that was asked for."""
    names = ["__ephemeral_asset_job__"]
    everything: Any = _changes(side, names)
    if not side.is_client:
        return [each.storage_id for each in everything]
    pages, cursor = [], None
    for _ in everything:
        chosen = RunStatusChangeRecordsFilter(DagsterEventType.RUN_FAILURE, job_names=names)
        page = side.events.fetch_run_status_changes(chosen, limit=1, cursor=cursor)
        cursor = page.cursor
        pages += [each.storage_id for each in page.records]
    return pages


# -- failed materializations


def _failures(side: Side) -> object:
    """Report that partitions failed, by the instance, as a run does."""
    run = run_id(side, BROKEN)
    for partition in PARTITIONS:
        side.instance.report_dagster_event(_failure(partition), run)
    if not side.is_client:
        return [["d", "c"], ["b"], ["b", "a"], list(reversed(PARTITIONS))]
    of = AssetRecordsFilter(asset_key=BROKEN)
    first = side.events.fetch_failed_materializations(of, limit=2)
    second = side.events.fetch_failed_materializations(of, limit=1, cursor=first.cursor)
    some = AssetRecordsFilter(asset_key=BROKEN, asset_partitions=["a", "b"])
    logged = side.events.get_records_for_run(
        run, of_type=DagsterEventType.ASSET_FAILED_TO_MATERIALIZE, ascending=False
    )
    pages = first, second, side.events.fetch_failed_materializations(some, limit=MANY), logged
    return [[each.partition_key for each in page.records] for page in pages]


def _failure(partition: str) -> DagsterEvent:
    return DagsterEvent.build_asset_failed_to_materialize_event(
        job_name="work",
        step_key="broken",
        asset_materialization_failure=AssetMaterializationFailure(
            asset_key=BROKEN,
            partition=partition,
            failure_type=AssetMaterializationFailureType.FAILED,
            reason=AssetMaterializationFailureReason.FAILED_TO_MATERIALIZE,
        ),
    )


# -- plans


def _planned_range(side: Side, key: AssetKey, partitions: Sequence[str]) -> object:
    """Plan partitions in one event, as over the client; over a plain storage there is one each."""
    defined = StaticPartitionsDefinition(list(PARTITIONS))
    if side.is_client:
        subset = defined.subset_with_partition_keys(partitions)
        plans = [AssetMaterializationPlannedData(key, partitions_subset=subset)]
    else:
        plans = [AssetMaterializationPlannedData(key, partition=each) for each in partitions]
    for plan in plans:
        event = DagsterEvent(PLANNED.value, "work", event_specific_data=plan)
        side.events.store_event(_entry(run_id(side, BROKEN), event))
    find = side.events.get_latest_asset_partition_materialization_attempts_without_materializations
    return {partition: run for partition, (run, _) in find(key).items()}


PROMISE_CASES: list[StorageCase] = [
    _Case("fetch_run_status_changes")("of some jobs", lambda side:
        _changes(side, ["__ephemeral_asset_job__"])),
    _Case("fetch_run_status_changes")("of some jobs, ascending", lambda side:
        _changes(side, ["__ephemeral_asset_job__", "reporting"], ascending=True)),
    _Case("fetch_run_status_changes")("of no job", lambda side: _changes(side, ["nothing"])),
    _Case("fetch_run_status_changes")("of a job, one by one", _pages),
    _Case("fetch_failed_materializations")("reported", _failures),
    _Case("get_latest_asset_partition_materialization_attempts_without_materializations")(
        "planned as a range", lambda side: _planned_range(side, BROKEN, ["b", "c", "d"])),
]  # fmt: skip
"""Last before everything is wiped: the two sides count their events differently afterwards."""
