"""What a job may ask of the control plane with the agent's token: pure decisions.

What user code needs is what the stock storages of ``dagster-cloud`` send from it
(``dagster_cloud/storage/**/queries.py``, ``dagster_cloud/secrets/loader.py``): its own run, those
it was started from, assets, its location's secrets. More is an administrator's to open, per
location (config/access.py); it does no agent's work. docs/security.md shows the table, which
tests/relay/test_scope.py checks cell by cell. Refusals are None, or the reason why not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpc_agent.config.access import Operation
from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.json_text import loads_object
from hpc_agent.relay.documents import Call
from hpc_agent.relay.identity import JobIdentity

# Events that belong to no run (instance.report_runless_asset_event) have this run id.
RUNLESS = ""
# What EventRecordsFilter may ask for without leading to the events of other runs
# (ASSET_EVENTS, ASSET_CHECK_EVENTS in dagster/_core/events/__init__.py).
_ASSET_EVENTS = frozenset(
    {
        "ASSET_MATERIALIZATION",
        "ASSET_MATERIALIZATION_PLANNED",
        "ASSET_FAILED_TO_MATERIALIZE",
        "ASSET_OBSERVATION",
        "ASSET_CHECK_EVALUATION",
        "ASSET_CHECK_EVALUATION_PLANNED",
        "ASSET_WIPED",
    }
)

_Arguments = Mapping[str, Any]
_Rule = Callable[[JobIdentity, _Arguments], str | None]


def call_refusal(
    identity: JobIdentity, wanted: Sequence[Call], variables: Mapping[str, Any]
) -> str | None:
    """Say why a job may not make these calls."""
    for call in wanted:
        rules = _QUERIES if call.operation == "query" else _MUTATIONS
        rule = rules.get((call.root, call.name))
        if rule is None:
            return f"{call} is refused to job {identity.key}: user code has no need of it"
        try:
            refusal = rule(identity, call.values(variables))
        except InputError as error:
            refusal = str(error)
        if refusal is not None:
            return f"{call} is refused to job {identity.key}: {refusal}"
    return None


def writes_of(wanted: Sequence[Call], variables: Mapping[str, Any]) -> list[Any]:
    """Return the runs that calls write into."""
    return [
        run
        for call in wanted
        if call.operation == "mutation" and (runs_of := _WRITES.get((call.root, call.name)))
        for run in runs_of(call.values(variables))
    ]


def events_refusal(identity: JobIdentity, runs: Sequence[Any]) -> str | None:
    """Say why a job may not write events of these runs."""
    return _written(identity, {identity.run_id, RUNLESS}, runs)


def logs_refusal(identity: JobIdentity, first_part: str) -> str | None:
    """Say why a job may not upload compute logs whose key begins so."""
    return _written(identity, {identity.run_id}, [first_part])


def _anything(_identity: JobIdentity, _arguments: _Arguments) -> str | None:
    return None


def _code_server_only(identity: JobIdentity, _arguments: _Arguments) -> str | None:
    return None if identity.kind == "code_server" else "only code servers may do this"


def _own_run(identity: JobIdentity, arguments: _Arguments) -> str | None:
    return _written(identity, {identity.run_id}, _run_of(arguments))


def _own_event(identity: JobIdentity, arguments: _Arguments) -> str | None:
    return events_refusal(identity, _runs_of_event(arguments))


def _own_events(identity: JobIdentity, arguments: _Arguments) -> str | None:
    return events_refusal(identity, _runs_of_events(arguments))


def _own_telemetry(identity: JobIdentity, arguments: _Arguments) -> str | None:
    return _written(identity, {identity.run_id}, _run_of_telemetry(arguments))


def _own_location(identity: JobIdentity, arguments: _Arguments) -> str | None:
    name = arguments.get("locationName")
    if name is None or name == identity.location:
        return None
    return f"this job belongs to location {identity.location!r}, not {name!r}"


def _opened(operation: Operation) -> _Rule:
    def rule(identity: JobIdentity, _arguments: _Arguments) -> str | None:
        if identity.access.allows(operation):
            return None
        return f"an administrator can open it: access.allow: [{operation}] in agent.yaml"

    return rule


def _whole_deployment(identity: JobIdentity, _arguments: _Arguments) -> str | None:
    return None if identity.access.reads_all else _unread(identity, "what is not of its own run")


def _related_run(identity: JobIdentity, arguments: _Arguments) -> str | None:
    return _read(identity, [arguments.get("runId")])


def _related_runs(argument: str) -> _Rule:
    def rule(identity: JobIdentity, arguments: _Arguments) -> str | None:
        filters = arguments.get(argument)
        return _read(identity, filters.get("runIds") if isinstance(filters, dict) else None)

    return rule


def _own_backfill(identity: JobIdentity, arguments: _Arguments) -> str | None:
    if identity.backfill_id is not None and arguments.get("backfillId") == identity.backfill_id:
        return None
    return _whole_deployment(identity, arguments)


def _asset_events(identity: JobIdentity, arguments: _Arguments) -> str | None:
    filters = arguments.get("eventRecordsFilter")
    kind = filters.get("eventType") if isinstance(filters, dict) else None
    is_of_assets = isinstance(kind, str) and kind in _ASSET_EVENTS
    return None if is_of_assets else _whole_deployment(identity, arguments)


def _read(identity: JobIdentity, runs: Any) -> str | None:
    if identity.access.reads_all:
        return None
    if not isinstance(runs, list) or not runs:
        return _unread(identity, "other runs")
    related = identity.related_runs
    foreign = [run for run in runs if not isinstance(run, str) or run not in related]
    return _unread(identity, f"run {foreign[0]!r}") if foreign else None


def _unread(identity: JobIdentity, what: str) -> str:
    key = "run_workers_read" if identity.kind == "run_worker" else "code_servers_read"
    return (
        f"it may read its own run, those it was started from, and assets, not {what}; an "
        f"administrator can open more: access.{key}: deployment in agent.yaml"
    )


def _written(identity: JobIdentity, own: set[str | None], runs: Sequence[Any]) -> str | None:
    """Of a code server, the relay asks besides whose the runs are."""
    if not runs:
        return "no run is named"
    for run in runs:
        if not isinstance(run, str):
            return f"{run!r} is no run"
        if identity.kind == "code_server" or identity.access.allows("write_other_runs"):
            continue
        if run not in own:
            return f"this job executes run {identity.run_id}, not {run!r}"
    return None


def _run_of(arguments: _Arguments) -> list[Any]:
    return [arguments.get("runId")]


def _run_of_telemetry(arguments: _Arguments) -> list[Any]:
    text = str(arguments.get("serializedTelemetry"))
    return [loads_object(text, unique=True).get("run_id")]


def _runs_of_event(arguments: _Arguments) -> list[Any]:
    return _runs_of_records(arguments.get("eventRecord"))


def _runs_of_events(arguments: _Arguments) -> list[Any]:
    return _runs_of_records(arguments.get("eventRecords"))


def _runs_of_records(records: Any) -> list[Any]:
    """Return the run ids of EventLogEntryInput values (one or a list)."""
    if isinstance(records, dict):  # GraphQL takes one value for a list of one
        records = [records]
    if not isinstance(records, list):
        return []
    return [record.get("runId") if isinstance(record, dict) else None for record in records]


_WRITES: Mapping[tuple[str, str], Callable[[_Arguments], list[Any]]] = {
    ("eventLogs", "StoreEvent"): _runs_of_event,
    ("eventLogs", "StoreEventBatch"): _runs_of_events,
    ("eventLogs", "ClaimConcurrencySlot"): _run_of,
    ("eventLogs", "FreeConcurrencySlotsForRun"): _run_of,
    ("eventLogs", "FreeConcurrencySlotForStep"): _run_of,
    ("runs", "addRunTags"): _run_of,
    ("runs", "addRunTelemetry"): _run_of_telemetry,
}

# Calls are listed one by one: a new one of a future dagster-cloud is refused until it was read.
_QUERIES: Mapping[tuple[str, str], _Rule] = {
    ("runs", "getRunById"): _related_run,
    ("runs", "hasRun"): _related_run,
    ("runs", "getRunGroupOrError"): _related_run,
    ("runs", "getRuns"): _related_runs("filters"),
    ("runs", "getRunIds"): _related_runs("filters"),
    ("runs", "getRunsCount"): _related_runs("filters"),
    ("runs", "getRunRecords"): _related_runs("filters"),
    ("runs", "getRunPartitionData"): _related_runs("runsFilter"),
    ("runs", "getRunTags"): _whole_deployment,
    ("runs", "getRunTagKeys"): _whole_deployment,
    ("runs", "getDaemonHeartbeats"): _whole_deployment,
    ("runs", "getBackfills"): _whole_deployment,
    ("runs", "getBackfill"): _own_backfill,
    # Addressed by the hash of their content: who knows it knows the content.
    ("runs", "hasPipelineSnapshot"): _anything,
    ("runs", "getPipelineSnapshot"): _anything,
    ("runs", "hasExecutionPlanSnapshot"): _anything,
    ("runs", "getExecutionPlanSnapshot"): _anything,
    ("eventLogs", "isPersistent"): _anything,
    ("eventLogs", "isAssetAware"): _anything,
    ("eventLogs", "getMaximumRecordId"): _anything,
    ("eventLogs", "getRecordsForRun"): _related_run,
    ("eventLogs", "getAssetPartitionsForRun"): _related_run,
    ("eventLogs", "getStatsForRun"): _related_run,
    ("eventLogs", "getStepStatsForRun"): _related_run,
    ("eventLogs", "getEventRecords"): _asset_events,
    ("eventLogs", "getRunStatusChangeEventRecords"): _whole_deployment,
    ("eventLogs", "fetchMaterializations"): _anything,
    ("eventLogs", "fetchObservations"): _anything,
    ("eventLogs", "fetchPlannedMaterializations"): _anything,
    ("eventLogs", "fetchFailedMaterializations"): _anything,
    ("eventLogs", "hasAssetKey"): _anything,
    ("eventLogs", "getAllAssetKeys"): _anything,
    ("eventLogs", "getLatestMaterializationEvents"): _anything,
    ("eventLogs", "getAssetRecords"): _anything,
    ("eventLogs", "getAssetCheckSummaryRecord"): _anything,
    ("eventLogs", "getLatestAssetCheckExecutionByKey"): _anything,
    ("eventLogs", "getMaterializedPartitions"): _anything,
    ("eventLogs", "getMaterializationCountByPartition"): _anything,
    ("eventLogs", "getLatestStorageIdByPartition"): _anything,
    ("eventLogs", "getLatestTagsByPartition"): _anything,
    (
        "eventLogs",
        "getLatestAssetPartitionMaterializationAttemptsWithoutMaterializations",
    ): _anything,
    ("eventLogs", "getAssetEventTags"): _anything,
    ("eventLogs", "getLatestPlannedMaterializationInfo"): _anything,
    ("eventLogs", "getUpdatedDataVersionPartitions"): _anything,
    ("eventLogs", "getAssetStatusCacheValues"): _anything,
    ("eventLogs", "getDynamicPartitions"): _anything,
    ("eventLogs", "getPaginatedDynamicPartitions"): _anything,
    ("eventLogs", "hasDynamicPartition"): _anything,
    # A claim on a pool needs its limits, and who holds its slots.
    ("eventLogs", "getConcurrencyKeys"): _anything,
    ("eventLogs", "getPoolLimits"): _anything,
    ("eventLogs", "getPoolConfig"): _anything,
    ("eventLogs", "getConcurrencyInfo"): _anything,
    ("eventLogs", "getCheckConcurrencyClaim"): _related_run,
    ("schedules", "jobStates"): _whole_deployment,
    ("schedules", "jobState"): _whole_deployment,
    ("schedules", "jobTicks"): _whole_deployment,
    ("latestDefsStateInfo", ""): _anything,
    ("scopedSecrets", ""): _own_location,
    ("__typename", ""): _anything,
}

_MUTATIONS: Mapping[tuple[str, str], _Rule] = {
    ("eventLogs", "StoreEvent"): _own_event,
    ("eventLogs", "StoreEventBatch"): _own_events,
    ("eventLogs", "UpdateAssetCachedStatusData"): _anything,
    ("eventLogs", "WipeAssetCachedStatusData"): _anything,  # a cache, rebuilt by the next reader
    ("eventLogs", "AddDynamicPartitions"): _anything,
    ("eventLogs", "DeleteDynamicPartition"): _anything,  # ops and sensors do this every day
    ("eventLogs", "InitializeConcurrencyLimit"): _anything,  # before each claim, idempotent
    ("eventLogs", "ClaimConcurrencySlot"): _own_run,
    ("eventLogs", "FreeConcurrencySlotsForRun"): _own_run,
    ("eventLogs", "FreeConcurrencySlotForStep"): _own_run,
    ("eventLogs", "SetConcurrencySlots"): _opened("manage_pools"),
    ("eventLogs", "DeleteConcurrencyLimit"): _opened("manage_pools"),
    ("eventLogs", "WipeAsset"): _opened("wipe_assets"),
    ("eventLogs", "WipeAssetPartitions"): _opened("wipe_assets"),
    ("eventLogs", "DeleteEvents"): _opened("delete_run_events"),
    ("runs", "addRunTags"): _own_run,
    ("runs", "addRunTelemetry"): _own_telemetry,
    # Addressed by the hash of their content: nothing can be overwritten.
    ("runs", "addPipelineSnapshot"): _anything,
    ("runs", "addExecutionPlanSnapshot"): _anything,
    # Runs that code makes itself: sensors that mirror another orchestrator's (dagster-airlift).
    ("runs", "addRun"): _code_server_only,
    ("runs", "addHistoricalRun"): _code_server_only,
    # The relay asks besides whose the key is.
    ("defsState", "setLatestDefsStateVersion"): _anything,
}
