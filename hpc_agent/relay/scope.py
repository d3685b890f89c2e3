"""What a job may ask of the control plane with the agent's token: pure decisions.

A job needs what the stock storages of ``dagster-cloud`` send from user code
(``dagster_cloud/storage/**/queries.py``, ``dagster_cloud/secrets/loader.py``): reading the
deployment's data, and writing events, tags and the like of its own run. It does no agent's work
and destroys nothing. Each function returns None, or the reason why not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpc_agent.relay.documents import Call, DocumentError, calls
from hpc_agent.relay.event_writes import runs_of_records, runs_of_upload
from hpc_agent.relay.identity import JobIdentity

# Events that belong to no run (instance.report_runless_asset_event) have this run id.
RUNLESS = ""
# DefsStateStorage._get_artifact_key (dagster/_core/storage/defs_state/base.py), frozen there.
DEFS_STATE_PREFIX = "__state__/"

_READ_GROUPS = frozenset({"runs", "eventLogs", "schedules"})
_Arguments = Mapping[str, Any]


def _anything(_identity: JobIdentity, _arguments: _Arguments) -> str | None:
    return None


def _code_server_only(identity: JobIdentity, _arguments: _Arguments) -> str | None:
    return None if identity.kind == "code_server" else "only code servers may do this"


def _own_run(identity: JobIdentity, arguments: _Arguments) -> str | None:
    return _foreign(identity, [arguments.get("runId")])


def _own_event(identity: JobIdentity, arguments: _Arguments) -> str | None:
    return _foreign(identity, runs_of_records(arguments.get("eventRecord")), runless=True)


def _own_events(identity: JobIdentity, arguments: _Arguments) -> str | None:
    return _foreign(identity, runs_of_records(arguments.get("eventRecords")), runless=True)


def _own_telemetry(identity: JobIdentity, arguments: _Arguments) -> str | None:
    try:
        telemetry = json.loads(arguments.get("serializedTelemetry") or "")
    except (TypeError, ValueError):
        return "serializedTelemetry is not JSON"
    return _foreign(identity, [telemetry.get("run_id") if isinstance(telemetry, dict) else None])


def _own_location(identity: JobIdentity, arguments: _Arguments) -> str | None:
    name = arguments.get("locationName")
    if name is None or name == identity.location:
        return None
    return f"this job belongs to location {identity.location!r}, not {name!r}"


# Mutations are listed one by one: a new one of a future dagster-cloud is refused until it was read.
_MUTATIONS: Mapping[tuple[str, str], Callable[[JobIdentity, _Arguments], str | None]] = {
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
    ("runs", "addRunTags"): _own_run,
    ("runs", "addRunTelemetry"): _own_telemetry,
    # Addressed by the hash of their content: nothing can be overwritten.
    ("runs", "addPipelineSnapshot"): _anything,
    ("runs", "addExecutionPlanSnapshot"): _anything,
    # Runs that code makes itself: sensors that mirror another orchestrator's (dagster-airlift).
    ("runs", "addRun"): _code_server_only,
    ("runs", "addHistoricalRun"): _code_server_only,
    ("defsState", "setLatestDefsStateVersion"): _anything,
}

_QUERY_ROOTS: Mapping[str, Callable[[JobIdentity, _Arguments], str | None]] = {
    "latestDefsStateInfo": _anything,
    "scopedSecrets": _own_location,
    "__typename": _anything,
}


def document_refusal(
    identity: JobIdentity, document: str, variables: Mapping[str, Any]
) -> str | None:
    """Say why a job may not send a GraphQL document; None lets it through."""
    try:
        wanted = calls(document)
    except DocumentError as error:
        return str(error)
    for call in wanted:
        refusal = _call_refusal(identity, call, variables)
        if refusal is not None:
            return f"{call} is refused to job {identity.key}: {refusal}"
    return None


def upload_refusal(identity: JobIdentity, body: bytes, content_type: str) -> str | None:
    """Say why a job may not send these events to ``/store_events``."""
    try:
        runs = runs_of_upload(body, content_type)
    except ValueError as error:
        return f"the events cannot be read: {error}"
    return _foreign(identity, runs, runless=True)


def logs_refusal(identity: JobIdentity, parameters: Sequence[tuple[str, str]]) -> str | None:
    """Say why a job may not ask ``/gen_logs_url`` for an upload address."""
    named = [value for name, value in parameters if name == "run_id"]
    named += [value for name, value in parameters if name == "log_key"][:1]
    if not named:
        return "no run is named"
    return _foreign(identity, named)


def artifact_refusal(body: bytes) -> str | None:
    """Say why a job may not ask for the address of an artifact: all but definitions' state is."""
    try:
        key = json.loads(body)["key"]
    except (ValueError, KeyError, TypeError):
        return "no artifact key is named"
    if isinstance(key, str) and key.startswith(DEFS_STATE_PREFIX) and ".." not in key.split("/"):
        return None
    return f"only artifacts below {DEFS_STATE_PREFIX} are let through, not {key!r}"


def _call_refusal(identity: JobIdentity, call: Call, variables: Mapping[str, Any]) -> str | None:
    if call.operation == "query":
        if call.root in _READ_GROUPS:
            return None
        rule = _QUERY_ROOTS.get(call.root)
    else:
        rule = _MUTATIONS.get((call.root, call.name))
    if rule is None:
        return "user code has no need of it"
    return rule(identity, call.values(variables))


def _foreign(identity: JobIdentity, runs: Sequence[Any], runless: bool = False) -> str | None:
    if identity.kind == "code_server":
        return None
    if not runs:
        return "no run is named"
    for run in runs:
        if run != identity.run_id and not (runless and run == RUNLESS):
            return f"this job executes run {identity.run_id}, not {run!r}"
    return None
