"""Event logs: writing and reading events, statistics of runs and steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ariadne import ObjectType
from dagster import DagsterEventType, EventLogRecord
from dagster._core.event_api import EventRecordsResult
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.stats import RunStepKeyStatsSnapshot
from dagster._core.storage.dagster_run import DagsterRunStatsSnapshot
from dagster._core.storage.event_log.base import EventLogConnection, EventLogStorage
from dagster_shared.serdes import serialize_value
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.event_pages import failed_materializations, status_changes
from hpc_agent.control_plane.events import decode_entry
from hpc_agent.control_plane.graphql.context import OK, context, instance
from hpc_agent.control_plane.graphql.filters import (
    Input,
    asset_records_filter,
    event_records_filter,
    event_types,
    status_changes_filter,
)
from hpc_agent.control_plane.run_events import with_known_ids

NO_LIMIT = 1_000_000

event_logs = ObjectType("EventLogsQuery")
event_log_mutations = ObjectType("EventLogsMutation")
entry_type = ObjectType("EventLogEntry")
step_stats = ObjectType("StepStats")
bindables = [event_logs, event_log_mutations, entry_type, step_stats]


def storage(info: GraphQLResolveInfo) -> EventLogStorage:
    return instance(info).event_log_storage


@event_log_mutations.field("StoreEvent")
def store_event(_: object, info: GraphQLResolveInfo, event_record: Input) -> dict[str, bool]:
    request = context(info)
    request.services.events.write([decode_entry(event_record)], request.idempotency_key)
    return OK


@event_log_mutations.field("StoreEventBatch")
def store_event_batch(
    _: object, info: GraphQLResolveInfo, event_records: Sequence[Input]
) -> dict[str, bool]:
    request = context(info)
    entries = [decode_entry(record) for record in event_records]
    request.services.events.write(entries, request.idempotency_key)
    return OK


@entry_type.field("errorInfo")
def entry_error(entry: EventLogEntry, _info: GraphQLResolveInfo) -> str | None:
    return serialize_value(entry.error_info) if entry.error_info else None


@entry_type.field("pipelineName")
def entry_job(entry: EventLogEntry, _info: GraphQLResolveInfo) -> str | None:
    return entry.job_name


@entry_type.field("dagsterEvent")
def entry_event(entry: EventLogEntry, _info: GraphQLResolveInfo) -> str | None:
    return serialize_value(entry.dagster_event) if entry.dagster_event else None


@event_logs.field("isPersistent")
def is_persistent(_: object, info: GraphQLResolveInfo) -> bool:
    return storage(info).is_persistent


@event_logs.field("isAssetAware")
def is_asset_aware(_: object, info: GraphQLResolveInfo) -> bool:
    return True


@event_logs.field("getMaximumRecordId")
def get_maximum_record_id(_: object, info: GraphQLResolveInfo) -> int | None:
    return storage(info).get_maximum_record_id()


@event_logs.field("getRecordsForRun")
def get_records_for_run(
    _: object,
    info: GraphQLResolveInfo,
    *,
    run_id: str,
    cursor: str | None = None,
    of_type: str | None = None,
    of_types: Sequence[str] | None = None,
    limit: int | None = None,
    ascending: bool | None = None,
) -> EventLogConnection:
    log, upwards = storage(info), ascending is not False
    if of_type is None:
        return log.get_records_for_run(run_id, cursor, event_types(of_types), limit, upwards)
    one = DagsterEventType(of_type)
    page = log.get_records_for_run(run_id, cursor, one, limit, upwards)
    return with_known_ids(log, run_id, one, page, ascending=upwards)


@event_logs.field("getEventRecords")
def get_event_records(
    _: object,
    info: GraphQLResolveInfo,
    *,
    event_records_filter: Input | None = None,
    limit: int | None = None,
    ascending: bool | None = None,
) -> Sequence[EventLogRecord]:
    chosen = _event_filter(event_records_filter)
    return storage(info).get_event_records(chosen, limit, ascending or False)


@event_logs.field("getAssetPartitionsForRun")
def get_asset_partitions_for_run(
    _: object,
    info: GraphQLResolveInfo,
    *,
    run_id: str,
    of_types: Sequence[str] | None = None,
    include_partitions: bool | None = None,
) -> list[dict[str, Any]]:
    found = storage(info).get_asset_partitions_for_run(run_id, event_types(of_types))
    return [
        {"asset_key": key.to_string(), "partitions": list(partitions)}
        if include_partitions
        else {"asset_key": key.to_string(), "partitions": None}
        for key, partitions in found.items()
    ]


@event_logs.field("getStatsForRun")
def get_stats_for_run(_: object, info: GraphQLResolveInfo, run_id: str) -> DagsterRunStatsSnapshot:
    return storage(info).get_stats_for_run(run_id)


@event_logs.field("getStepStatsForRun")
def get_step_stats_for_run(
    _: object, info: GraphQLResolveInfo, run_id: str, step_keys: Sequence[str] | None = None
) -> Sequence[RunStepKeyStatsSnapshot]:
    return storage(info).get_step_stats_for_run(run_id, step_keys or None)


@step_stats.field("status")
def step_status(stats: RunStepKeyStatsSnapshot, _info: GraphQLResolveInfo) -> str | None:
    return stats.status.name if stats.status else None


@step_stats.field("materializationEvents")
@step_stats.field("expectationResults")
@step_stats.field("attemptsList")
@step_stats.field("markers")
def step_list(stats: RunStepKeyStatsSnapshot, info: GraphQLResolveInfo) -> list[str]:
    attribute = {
        "materializationEvents": "materialization_events",
        "expectationResults": "expectation_results",
        "attemptsList": "attempts_list",
    }.get(info.field_name, info.field_name)
    return [serialize_value(value) for value in getattr(stats, attribute) or ()]


@event_logs.field("fetchMaterializations")
@event_logs.field("fetchObservations")
@event_logs.field("fetchPlannedMaterializations")
@event_logs.field("fetchFailedMaterializations")
def fetch_asset_events(
    _: object,
    info: GraphQLResolveInfo,
    *,
    records_filter: Input,
    limit: int | None = None,
    cursor: str | None = None,
    ascending: bool | None = None,
) -> EventRecordsResult:
    fetches: dict[str, Callable[..., EventRecordsResult]] = {
        "fetchMaterializations": storage(info).fetch_materializations,
        "fetchObservations": storage(info).fetch_observations,
        "fetchPlannedMaterializations": instance(info).fetch_planned_materializations,
        "fetchFailedMaterializations": partial(failed_materializations, storage(info)),
    }
    chosen = asset_records_filter(records_filter)
    return fetches[info.field_name](chosen, limit or NO_LIMIT, cursor, ascending or False)


@event_logs.field("getRunStatusChangeEventRecords")
def fetch_run_status_changes(
    _: object,
    info: GraphQLResolveInfo,
    *,
    records_filter: Input,
    limit: int | None = None,
    cursor: str | None = None,
    ascending: bool | None = None,
) -> EventRecordsResult:
    chosen = status_changes_filter(records_filter)
    return status_changes(storage(info), chosen, limit or NO_LIMIT, cursor, ascending or False)


def _event_filter(given: Input | None) -> Any:
    return event_records_filter(given)
