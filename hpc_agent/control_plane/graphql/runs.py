"""Runs, their snapshots and tags, backfills, daemon heartbeats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from ariadne import ObjectType, UnionType
from dagster import DagsterRun
from dagster._core.errors import (
    DagsterRunAlreadyExists,
    DagsterRunNotFoundError,
    DagsterSnapshotDoesNotExist,
)
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.execution.telemetry import RunTelemetryData
from dagster._core.remote_origin import RemoteJobOrigin
from dagster._core.snap import ExecutionPlanSnapshot, JobSnap
from dagster._core.storage.dagster_run import RunRecord
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.serdes import serialize_value
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.graphql.context import OK, instance
from hpc_agent.control_plane.graphql.filters import Input, backfills_filter, bucket, runs_filter
from hpc_agent.control_plane.received import received
from hpc_agent.control_plane.run_origins import plain
from hpc_agent.errors import ControlPlaneRefusedError
from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.json_text import loads, loads_object

runs = ObjectType("RunsQuery")
run_mutations = ObjectType("RunsMutation")
run_record = ObjectType("RunRecord")
run_group = UnionType("RunGroupOrError")
bindables = [runs, run_mutations, run_record, run_group]


@runs.field("getRuns")
def get_runs(
    _: object,
    info: GraphQLResolveInfo,
    *,
    filters: Input | None = None,
    cursor: str | None = None,
    limit: int | None = None,
    bucket_by: Input | None = None,
    ascending: bool | None = None,
) -> list[str]:
    found = instance(info).run_storage.get_runs(
        runs_filter(filters), cursor, limit, bucket(bucket_by), ascending or False
    )
    return [_serialized(run) for run in found]


@runs.field("getRunIds")
def get_run_ids(
    _: object,
    info: GraphQLResolveInfo,
    *,
    filters: Input | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Sequence[str]:
    return instance(info).run_storage.get_run_ids(runs_filter(filters), cursor, limit)


@runs.field("getRunsCount")
def get_runs_count(_: object, info: GraphQLResolveInfo, filters: Input | None = None) -> int:
    return instance(info).run_storage.get_runs_count(runs_filter(filters))


@runs.field("getRunById")
def get_run_by_id(_: object, info: GraphQLResolveInfo, run_id: str) -> str | None:
    run = instance(info).get_run_by_id(run_id)
    return _serialized(run) if run else None


@runs.field("hasRun")
def has_run(_: object, info: GraphQLResolveInfo, run_id: str) -> bool:
    return instance(info).has_run(run_id)


@runs.field("getRunGroupOrError")
def get_run_group(_: object, info: GraphQLResolveInfo, run_id: str) -> dict[str, Any]:
    try:
        group = instance(info).run_storage.get_run_group(run_id)
    except DagsterRunNotFoundError:
        group = None
    if group is None:
        return {"run_id": run_id}
    root, members = group
    return {"root_run_id": root, "serialized_runs": [_serialized(run) for run in members]}


@run_group.type_resolver
def run_group_type(group: Mapping[str, Any], *_: object) -> str:
    return "SerializedRunGroup" if "root_run_id" in group else "RunNotFoundError"


@runs.field("getRunRecords")
def get_run_records(
    _: object,
    info: GraphQLResolveInfo,
    *,
    filters: Input | None = None,
    limit: int | None = None,
    order_by: str | None = None,
    ascending: bool | None = None,
    cursor: str | None = None,
    bucket_by: Input | None = None,
) -> Sequence[RunRecord]:
    return instance(info).run_storage.get_run_records(
        runs_filter(filters), limit, order_by, ascending or False, cursor, bucket(bucket_by)
    )


@run_record.field("serializedPipelineRun")
def record_run(record: RunRecord, _info: GraphQLResolveInfo) -> str:
    return _serialized(record.dagster_run)


@run_record.field("createTimestamp")
def record_created(record: RunRecord, _info: GraphQLResolveInfo) -> float:
    return record.create_timestamp.timestamp()


@run_record.field("updateTimestamp")
def record_updated(record: RunRecord, _info: GraphQLResolveInfo) -> float:
    return record.update_timestamp.timestamp()


@runs.field("getRunTags")
def get_run_tags(
    _: object,
    info: GraphQLResolveInfo,
    *,
    json_tag_keys: str,
    value_prefix: str | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    keys = loads(json_tag_keys)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError("jsonTagKeys must be a list of names")
    found = instance(info).run_storage.get_run_tags(keys, value_prefix, limit)
    return [{"key": key, "values": sorted(values)} for key, values in found]


@runs.field("getRunTagKeys")
def get_run_tag_keys(_: object, info: GraphQLResolveInfo) -> Sequence[str]:
    return instance(info).run_storage.get_run_tag_keys()


@runs.field("hasPipelineSnapshot")
def has_pipeline_snapshot(_: object, info: GraphQLResolveInfo, pipeline_snapshot_id: str) -> bool:
    return instance(info).run_storage.has_job_snapshot(pipeline_snapshot_id)


@runs.field("getPipelineSnapshot")
def get_pipeline_snapshot(_: object, info: GraphQLResolveInfo, pipeline_snapshot_id: str) -> str:
    return serialize_value(instance(info).run_storage.get_job_snapshot(pipeline_snapshot_id))


@runs.field("hasExecutionPlanSnapshot")
def has_plan_snapshot(_: object, info: GraphQLResolveInfo, execution_plan_snapshot_id: str) -> bool:
    return instance(info).run_storage.has_execution_plan_snapshot(execution_plan_snapshot_id)


@runs.field("getExecutionPlanSnapshot")
def get_plan_snapshot(_: object, info: GraphQLResolveInfo, execution_plan_snapshot_id: str) -> str:
    storage = instance(info).run_storage
    return serialize_value(storage.get_execution_plan_snapshot(execution_plan_snapshot_id))


@runs.field("getRunPartitionData")
def get_run_partition_data(_: object, info: GraphQLResolveInfo, runs_filter: Input) -> list[str]:
    chosen = _required_filter(runs_filter)
    return [serialize_value(data) for data in instance(info).get_run_partition_data(chosen)]


@runs.field("getDaemonHeartbeats")
def get_daemon_heartbeats(_: object, info: GraphQLResolveInfo) -> str:
    heartbeats = instance(info).run_storage.get_daemon_heartbeats()
    return json.dumps({name: serialize_value(beat) for name, beat in heartbeats.items()})


@runs.field("getBackfills")
def get_backfills(
    _: object,
    info: GraphQLResolveInfo,
    *,
    status: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
    filters: Input | None = None,
) -> list[str]:
    found = instance(info).run_storage.get_backfills(
        filters=backfills_filter(filters), cursor=cursor, limit=limit,
        status=BulkActionStatus(status) if status else None,
    )  # fmt: skip
    return [serialize_value(backfill) for backfill in found]


@runs.field("getBackfill")
def get_backfill(_: object, info: GraphQLResolveInfo, backfill_id: str) -> str | None:
    backfill = instance(info).run_storage.get_backfill(backfill_id)
    return serialize_value(backfill) if backfill else None


@run_mutations.field("addRun")
def add_run(_: object, info: GraphQLResolveInfo, serialized_pipeline_run: str) -> dict[str, Any]:
    run = received(serialized_pipeline_run, DagsterRun)
    try:
        instance(info).run_storage.add_run(run)
    except (DagsterRunAlreadyExists, DagsterSnapshotDoesNotExist) as error:
        return _failure(error)
    return OK


@run_mutations.field("addHistoricalRun")
def add_historical_run(
    _: object, info: GraphQLResolveInfo, serialized_pipeline_run: str, run_creation_time: float
) -> dict[str, Any]:
    run = received(serialized_pipeline_run, DagsterRun)
    created = datetime.fromtimestamp(run_creation_time, tz=UTC)
    try:
        instance(info).run_storage.add_historical_run(run, created)
    except (DagsterRunAlreadyExists, DagsterSnapshotDoesNotExist) as error:
        return _failure(error)
    return OK


@run_mutations.field("addRunTags")
def add_run_tags(
    _: object, info: GraphQLResolveInfo, run_id: str, json_new_tags: str
) -> dict[str, bool]:
    tags = loads_object(json_new_tags)
    if not all(isinstance(value, str) for value in tags.values()):
        raise InputError("jsonNewTags must hold text only")
    instance(info).add_run_tags(run_id, tags)
    return OK


@run_mutations.field("addPipelineSnapshot")
def add_pipeline_snapshot(
    _: object,
    info: GraphQLResolveInfo,
    *,
    serialized_pipeline_snapshot: str,
    snapshot_id: str | None = None,
) -> dict[str, bool]:
    snap = received(serialized_pipeline_snapshot, JobSnap)
    instance(info).run_storage.add_job_snapshot(snap)
    return OK


@run_mutations.field("addExecutionPlanSnapshot")
def add_plan_snapshot(
    _: object,
    info: GraphQLResolveInfo,
    *,
    serialized_execution_plan_snapshot: str,
    snapshot_id: str | None = None,
) -> dict[str, Any]:
    snap = received(serialized_execution_plan_snapshot, ExecutionPlanSnapshot)
    return {"ok": True, "snapshot_id": instance(info).run_storage.add_execution_plan_snapshot(snap)}


@run_mutations.field("addDaemonHeartbeat")
def add_daemon_heartbeat(
    _: object, info: GraphQLResolveInfo, serialized_daemon_heartbeat: str
) -> dict[str, bool]:
    heartbeat = received(serialized_daemon_heartbeat, DaemonHeartbeat)
    instance(info).run_storage.add_daemon_heartbeat(heartbeat)
    return OK


@run_mutations.field("addRunTelemetry")
def add_run_telemetry(
    _: object, info: GraphQLResolveInfo, serialized_telemetry: str, serialized_tags: str
) -> dict[str, bool]:
    telemetry = received(serialized_telemetry, RunTelemetryData)
    tags = received(serialized_tags, dict)
    instance(info).run_storage.add_run_telemetry(telemetry, cast("dict[str, str]", tags))
    return OK


@run_mutations.field("addBackfill")
def add_backfill(
    _: object, info: GraphQLResolveInfo, serialized_partition_backfill: str
) -> dict[str, bool]:
    backfill = received(serialized_partition_backfill, PartitionBackfill)
    instance(info).run_storage.add_backfill(backfill)
    return OK


@run_mutations.field("updateBackfill")
def update_backfill(
    _: object, info: GraphQLResolveInfo, serialized_partition_backfill: str
) -> dict[str, bool]:
    backfill = received(serialized_partition_backfill, PartitionBackfill)
    instance(info).run_storage.update_backfill(backfill)
    return OK


@run_mutations.field("mutateJobOrigin")
def mutate_job_origin(
    _: object, info: GraphQLResolveInfo, run_id: str, serialized_job_origin: str
) -> dict[str, bool]:
    run = instance(info).get_run_by_id(run_id)
    if run is None:
        raise ControlPlaneRefusedError(f"no run {run_id}")
    origin = received(serialized_job_origin, RemoteJobOrigin)
    instance(info).run_storage.replace_job_origin(run, origin)
    return OK


def _serialized(run: DagsterRun) -> str:
    """Return a run as agents and jobs know it."""
    return serialize_value(plain(run))


def _failure(error: Exception) -> dict[str, Any]:
    described = {"message": str(error), "class_name": type(error).__name__, "stack": []}
    return {"ok": False, "error": described}


def _required_filter(given: Input) -> Any:
    return runs_filter(given)
