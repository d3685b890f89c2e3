"""Events that the agent itself writes into a run's log, as the stock ``StoreEvent`` mutation takes.

The shape is that of ``_input_for_event`` in dagster_cloud/storage/event_logs/storage.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.dagster_plus.serdes import dumps, error_info, packed, packed_enum

STORE_EVENT = """
    mutation StoreEvent($eventRecord: EventLogEntryInput!) {
        eventLogs {
            StoreEvent(eventRecord: $eventRecord) {
                ok
            }
        }
    }
"""

ADD_RUN_TAGS = """
    mutation addRunTagsMutation($runId: String!, $jsonNewTags: JSONString!) {
        runs {
            addRunTags(runId: $runId, jsonNewTags: $jsonNewTags) {
                ok
            }
        }
    }
"""

# Where the answers to these hold their results.
STORED_EVENT = ("eventLogs", "StoreEvent")
ADDED_RUN_TAGS = ("runs", "addRunTags")

Event = dict[str, Any]


def engine_event(
    run_id: str,
    job_name: str,
    message: str,
    *,
    at: float,
    metadata: Mapping[str, str | int | float] | None = None,
    error: str | None = None,
) -> Event:
    """Return an engine event: one line in the run's log, with metadata entries beside it."""
    data = packed(
        "EngineEventData",
        metadata_entries=[_metadata_entry(name, value) for name, value in (metadata or {}).items()],
        error=error_info(error) if error else None,
        marker_start=None,
        marker_end=None,
    )
    level = logging.ERROR if error else logging.INFO
    return _event(run_id, job_name, "ENGINE_EVENT", message, data, at=at, level=level)


def asset_observation(
    run_id: str,
    job_name: str,
    asset_key: Sequence[str],
    partition: str | None,
    description: str,
    *,
    at: float,
    metadata: Mapping[str, str | int | float],
) -> Event:
    """Return what was observed of an asset; no materialization, so that nothing becomes stale."""
    observation = packed(
        "AssetObservation",
        asset_key=packed("AssetKey", path=list(asset_key)),
        description=description,
        metadata_entries=[_metadata_entry(name, value) for name, value in metadata.items()],
        partition=partition,
        tags={},
    )
    data = packed("AssetObservationData", asset_observation=observation)
    return _event(
        run_id, job_name, "ASSET_OBSERVATION", description, data, at=at, level=logging.INFO
    )


def run_failure(run_id: str, job_name: str, message: str, *, at: float, detail: str = "") -> Event:
    """Return the event that makes a run FAILED, with more lines of its error in ``detail``."""
    data = packed(
        "PipelineFailureData",
        error=error_info("\n".join(filter(None, [message, detail]))),
        failure_reason=packed_enum("RunFailureReason", "RUN_EXCEPTION"),
        first_step_failure_event=None,
    )
    return _event(run_id, job_name, "PIPELINE_FAILURE", message, data, at=at, level=logging.ERROR)


def run_canceling(run_id: str, job_name: str, *, at: float) -> Event:
    """Return the event that makes a run CANCELING, with Dagster's own words."""
    message = "Sending run termination request."
    return _event(run_id, job_name, "PIPELINE_CANCELING", message, None, at=at, level=logging.INFO)


def run_canceled(run_id: str, job_name: str, message: str, *, at: float) -> Event:
    """Return the event that makes a run CANCELED."""
    data = packed("PipelineCanceledData", error=None)
    return _event(run_id, job_name, "PIPELINE_CANCELED", message, data, at=at, level=logging.ERROR)


def _event(
    run_id: str,
    job_name: str,
    event_type: str,
    message: str,
    data: dict[str, Any] | None,
    *,
    at: float,
    level: int,
) -> Event:
    return {
        "errorInfo": None,
        "level": level,
        "userMessage": "",
        "runId": run_id,
        "timestamp": at,
        "stepKey": None,
        "pipelineName": job_name,
        "dagsterEvent": {
            "eventTypeValue": event_type,
            "pipelineName": job_name,
            "stepHandleKey": None,
            "solidHandleId": None,
            "stepKindValue": None,
            "loggingTags": None,
            "eventSpecificData": None if data is None else dumps(data),
            "message": message,
            "pid": None,
            "stepKey": None,
        },
    }


def _metadata_entry(label: str, value: str | float) -> dict[str, Any]:
    if isinstance(value, int):
        data = packed("IntMetadataEntryData", value=value)
    elif isinstance(value, float):
        data = packed("FloatMetadataEntryData", value=value)
    else:
        data = packed("TextMetadataEntryData", text=value)
    return packed("EventMetadataEntry", label=label, description=None, entry_data=data)
