"""From what was recorded to named messages, each read with the stock type that belongs to it."""

from __future__ import annotations

import json
import re
import warnings
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from graphql import parse, print_ast

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster_cloud.api.dagster_cloud_api import (
        AgentHeartbeat,
        DagsterCloudCodeLocationUpdateResult,
        DagsterCloudUploadApiResponse,
        SnapshotUploadData,
        TimestampedError,
    )
    from dagster_shared.serdes import deserialize_value, serialize_value

from hpc_agent.control_plane.events import decode_entry
from tests.wire.normalization import normalized
from tests.wire.recorder import Exchange, Recorder

Messages = dict[str, Any]

_OPERATION = re.compile(r"(?:query|mutation)\s+(\w+)")
# What our agent and the stock one ask the control plane themselves; run workers ask far more.
_AGENT_CALLS = {
    "GetUserCloudRequests": "poll for requests",
    "WorkspaceEntries": "question for the workspace",
    "Deployments": "question for the deployments",
}
_RUN_EVENTS = ("PIPELINE_", "STEP_", "ASSET_", "LOGS_", "HANDLED_", "RESOURCE_")


def messages_of(recorder: Recorder) -> Messages:
    """Return everything that is compared, normalized, by name."""
    exchanges = recorder.exchanges
    found: Messages = {}
    found |= _graphql(exchanges)
    found |= {"heartbeat": _heartbeat(exchanges)}
    found |= _snapshots(exchanges)
    found |= _answers(recorder)
    found |= {"tags of a launched run": {"run tags": _tags(exchanges)}}
    found |= {"events of runs": {"event types": _events(exchanges)}}
    return {name: normalized(content) for name, content in found.items()}


def _graphql(exchanges: Iterable[Exchange]) -> Messages:
    """The last of each kind: the first ones may come before there is anything to say."""
    calls = {}
    for exchange in exchanges:
        if exchange.path == "/graphql" and (name := _AGENT_CALLS.get(_operation(exchange))):
            calls[name] = {
                "document": print_ast(parse(exchange.json["query"])),
                "variables": exchange.json["variables"],
                "scope": exchange.headers["dagster-cloud-scope"],
            }
    return calls


def _heartbeat(exchanges: Iterable[Exchange]) -> Any:
    call = [e for e in exchanges if _operation(e) == "AddAgentHeartbeats"][-1]
    variables = call.json["variables"]
    for error in variables["serializedErrors"]:
        _read(error, TimestampedError)
    return {
        "document": print_ast(parse(call.json["query"])),
        "scope": call.headers["dagster-cloud-scope"],
        "heartbeats": [
            [each["deploymentName"], _read(each["serializedAgentHeartbeat"], AgentHeartbeat)]
            for each in variables["serializedAgentHeartbeats"]
        ],
    }


def _snapshots(exchanges: Iterable[Exchange]) -> Messages:
    checks, bodies, confirmed, results = [], [], [], []
    for exchange in exchanges:
        match exchange.path:
            case "/check_snapshot":
                checks.append(sorted(exchange.query))
            case "/confirm_upload":
                upload = _read(exchange.body.decode(), SnapshotUploadData)
                confirmed.append(upload)
            case "/code_location_update_result":
                results.append(_read(exchange.body.decode(), DagsterCloudCodeLocationUpdateResult))
            case path if path.startswith("/uploads/"):
                bodies.append(_snapshot(exchange.body))
    return {
        "question for snapshots": _sorted(checks),
        "snapshots": _sorted(body for body in bodies if body is not None),
        "confirmation of uploads": _sorted(confirmed),
        "definitions of a location": results,
    }


def _snapshot(body: bytes) -> Any:
    """A snapshot is zlib and JSON; a compute log, which comes this way too, is gzip."""
    try:
        return json.loads(zlib.decompress(body))
    except (zlib.error, ValueError):
        return None


def _answers(recorder: Recorder) -> Messages:
    answers = {
        f"answer: {name}": _read(exchange.inflated, DagsterCloudUploadApiResponse)
        for name, exchange in recorder.answers.items()
    }
    for exchange in recorder.exchanges:
        if exchange.path == "/upload_api_response":
            answer = _read(exchange.inflated, DagsterCloudUploadApiResponse)
            if answer["request_api"] in {"LAUNCH_RUN", "TERMINATE_RUN"}:
                answers[f"answer: {answer['request_api']}"] = answer
    return answers


def _events(exchanges: Iterable[Exchange]) -> list[str]:
    """What the runs' logs hold, without engine events: those tell of how, not of what."""
    types = set()
    for exchange in exchanges:
        if _operation(exchange) == "StoreEvent":
            record = _snake_case(exchange.json["variables"]["eventRecord"])
            event = decode_entry(record).dagster_event
            if event is not None and event.event_type_value.startswith(_RUN_EVENTS):
                types.add(event.event_type_value)
    return sorted(types)


def _tags(exchanges: Iterable[Exchange]) -> list[str]:
    keys: set[str] = set()
    for exchange in exchanges:
        if _operation(exchange) == "addRunTagsMutation":
            keys |= json.loads(exchange.json["variables"]["jsonNewTags"]).keys()
    return sorted(keys)


def _read(serialized: str, stock_type: Any) -> Any:
    """Read with the stock type, and make sure that the type lets nothing of it fall."""
    written = json.loads(serialize_value(deserialize_value(serialized, stock_type)))
    sent = json.loads(serialized)
    assert written == sent, f"{stock_type.__name__} drops or adds something: {sent}"
    return sent


def _operation(exchange: Exchange) -> str:
    if exchange.path != "/graphql":
        return ""
    found = _OPERATION.search(exchange.json["query"])
    return found.group(1) if found else ""


def _sorted(items: Iterable[Any]) -> list[Any]:
    key: Callable[[Any], str] = json.dumps
    return sorted(items, key=key)


def _snake_case(value: Any) -> Any:
    if isinstance(value, dict):
        return {re.sub(r"[A-Z]", lambda m: f"_{m[0].lower()}", key): _snake_case(content)
                for key, content in value.items()}  # fmt: skip
    return value
