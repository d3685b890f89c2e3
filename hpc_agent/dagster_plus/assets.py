"""Which assets a run has materialized, and who observes them: queries of the stock client's API.

The shapes are those of dagster_cloud/storage/event_logs/queries.py, with the fields that are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.errors import ControlPlaneError
from hpc_agent.inbound.json_text import loads
from hpc_agent.outgoing.graphql_answer import field_at

_MATERIALIZATIONS = """
    query getRecordsForRun($runId: String!, $ofType: String, $limit: Int) {
        eventLogs {
            getRecordsForRun(runId: $runId, ofType: $ofType, limit: $limit) {
                records {
                    eventLogEntry {
                        timestamp
                        dagsterEvent
                    }
                }
                hasMore
            }
        }
    }
"""

_ASSETS = """
    query getAssetRecords($assetKeys: [String!]) {
        eventLogs {
            getAssetRecords(assetKeys: $assetKeys) {
                assetEntry {
                    assetKey {
                        path
                    }
                    lastObservationRecord {
                        eventLogEntry {
                            dagsterEvent
                        }
                    }
                }
            }
        }
    }
"""

AssetKey = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Materialized:
    """What of an asset a step has materialized, and when (seconds since the epoch, its clock)."""

    key: AssetKey
    partition: str | None
    step: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Materializations:
    """What a run has materialized, in order; ``has_more`` when this is not all of it."""

    found: Sequence[Materialized]
    has_more: bool


class _Key(BaseModel):
    path: tuple[str, ...]


class _Label(BaseModel):
    label: str


class _AssetEvent(BaseModel):
    asset_key: _Key
    partition: str | None = None
    metadata_entries: list[_Label] = []


class _Specific(BaseModel):
    materialization: _AssetEvent | None = None
    asset_observation: _AssetEvent | None = None


class _Event(BaseModel):
    step_key: str | None = None
    event_specific_data: _Specific


async def materializations(
    api: AgentApi, run_id: str, *, deployment: str, limit: int
) -> Materializations:
    """Return the first materializations of a run. Raises ControlPlaneError."""
    variables = {"runId": run_id, "ofType": "ASSET_MATERIALIZATION", "limit": limit}
    data = await api.graphql(_MATERIALIZATIONS, variables, deployment=deployment)
    page = _asked(data, "getRecordsForRun")
    found = []
    for entry in _list(page.get("records") if isinstance(page, Mapping) else None):
        at, event = _of_entry(entry.get("eventLogEntry"))
        made = event.event_specific_data.materialization
        if made is not None:
            found.append(Materialized(made.asset_key.path, made.partition, event.step_key, at))
    return Materializations(found, has_more=bool(page.get("hasMore")))


async def observed_assets(
    api: AgentApi, keys: Sequence[AssetKey], *, deployment: str
) -> dict[AssetKey, list[str]]:
    """Return the labels of the metadata in the last observation of each asset that has one.

    Raises ControlPlaneError.
    """
    data = await api.graphql(
        _ASSETS, {"assetKeys": [_to_string(key) for key in keys]}, deployment=deployment
    )
    return dict(_last_observations(_list(_asked(data, "getAssetRecords"))))


def _last_observations(
    records: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[AssetKey, list[str]]]:
    for record in records:
        entry = record.get("assetEntry")
        last = entry.get("lastObservationRecord") if isinstance(entry, Mapping) else None
        if isinstance(last, Mapping):
            _, event = _of_entry(last.get("eventLogEntry"))
            seen = event.event_specific_data.asset_observation
            if seen is not None:
                yield seen.asset_key.path, [each.label for each in seen.metadata_entries]


def _of_entry(entry: object) -> tuple[float, _Event]:
    """Read an EventLogEntry, of which the event is JSON in a string. Raises ControlPlaneError."""
    fields = entry if isinstance(entry, Mapping) else {}
    try:
        event = _Event.model_validate(loads(str(fields.get("dagsterEvent"))))
        return float(fields.get("timestamp") or 0.0), event
    except (ValidationError, ValueError, TypeError) as error:
        words = f"the control plane sent an event that cannot be read: {error}"
        raise ControlPlaneError(words[:2000]) from None


def _to_string(key: AssetKey) -> str:
    """Return a key as AssetKey.to_string does: JSON with a blank after each comma."""
    return json.dumps(list(key))


def _asked(data: Mapping[str, Any], field: str) -> Any:
    try:
        return field_at(data, ("eventLogs", field))
    except LookupError as error:
        raise ControlPlaneError(f"the control plane's answer is no answer: {error}") from None


def _list(content: object) -> list[Mapping[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(each, Mapping) for each in content):
        raise ControlPlaneError("the control plane's answer holds no list of records")
    return content
