"""Requests that are calls of a code server: which call, with what, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpc_agent.dagster_plus import requests
from hpc_agent.dagster_plus.serdes import Packed, dumps
from hpc_agent.errors import ControlPlaneError
from hpc_agent.grpc import client as grpc
from hpc_agent.grpc.client import CodeServerClient, UnaryCall

_MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _ServerCall:
    call: UnaryCall
    with_instance: bool = False


_CALLS: Mapping[str, _ServerCall] = {
    requests.GET_EXTERNAL_EXECUTION_PLAN: _ServerCall(grpc.EXECUTION_PLAN, with_instance=True),
    requests.GET_SUBSET_EXTERNAL_PIPELINE_RESULT: _ServerCall(grpc.JOB_SUBSET),
    requests.GET_EXTERNAL_PARTITION_CONFIG: _ServerCall(grpc.PARTITION_CONFIG),
    requests.GET_EXTERNAL_PARTITION_TAGS: _ServerCall(grpc.PARTITION_TAGS),
    requests.GET_EXTERNAL_PARTITION_NAMES: _ServerCall(grpc.PARTITION_NAMES),
    requests.GET_EXTERNAL_PARTITION_SET_EXECUTION_PARAM_DATA: _ServerCall(grpc.PARTITION_SET),
    requests.GET_EXTERNAL_SCHEDULE_EXECUTION_DATA: _ServerCall(grpc.SCHEDULE, with_instance=True),
    requests.GET_EXTERNAL_SENSOR_EXECUTION_DATA: _ServerCall(grpc.SENSOR, with_instance=True),
}

SERVER_REQUESTS = frozenset(_CALLS) | {
    requests.GET_EXTERNAL_NOTEBOOK_DATA,
    requests.REFRESH_COMPONENT_STATE,
}


async def call_server(
    server: CodeServerClient,
    api: str,
    args: Mapping[str, Any],
    *,
    instance: Packed,
) -> str:
    """Make the call of a request and return the answer, unopened. Raises CodeServerError."""
    if api == requests.GET_EXTERNAL_NOTEBOOK_DATA:
        return (await server.notebook(str(args.get("notebook_path")))).decode()
    if api == requests.REFRESH_COMPONENT_STATE:
        return await server.refresh_components(_keys(args))
    server_call = _CALLS[api]
    serialized = dumps(args)
    if server_call.with_instance:
        serialized = requests.with_instance_ref(args, instance)
    return await server.call(server_call.call, serialized, deadline_seconds=_deadline(args))


def _keys(args: Mapping[str, Any]) -> list[str]:
    given = args.get("defs_state_keys") or []
    if not isinstance(given, list) or not all(isinstance(key, str) for key in given):
        raise ControlPlaneError("a request about components whose defs_state_keys are no names")
    return given


def _deadline(args: Mapping[str, Any]) -> float:
    """A schedule or sensor brings its own time limit along."""
    given = requests.seconds_in(args, "timeout")
    return grpc.DEFAULT_TIMEOUT_SECONDS if given is None else given + _MARGIN_SECONDS
