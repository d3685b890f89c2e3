"""Requests that are calls of a code server: which call, with what, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpc_agent.dagster_plus import requests
from hpc_agent.dagster_plus.serdes import Packed, dumps
from hpc_agent.errors import CodeServerTimeoutError, ControlPlaneError
from hpc_agent.grpc import client as grpc
from hpc_agent.grpc.client import CodeServerClient, UnaryCall


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


# Who asks waits so long, and the request expires then (dagster/_grpc/utils.py).
_LIMITS: Mapping[str, str] = {
    requests.GET_EXTERNAL_SCHEDULE_EXECUTION_DATA: "DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS",
    requests.GET_EXTERNAL_SENSOR_EXECUTION_DATA: "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS",
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
    seconds: float,
) -> str:
    """Make the call of a request and return the answer, unopened. Raises CodeServerError.

    ``seconds`` is for how long whoever has asked will wait.
    """
    # A schedule or sensor brings its own limit along.
    seconds = min(seconds, requests.seconds_in(args, "timeout") or seconds)
    try:
        return await _call(server, api, args, instance=instance, seconds=seconds)
    except CodeServerTimeoutError as error:
        limit = _LIMITS.get(api, "DAGSTER_GRPC_TIMEOUT_SECONDS")
        raise CodeServerTimeoutError(
            f"{api}: user code did not answer within {seconds:.0f} s, and may be working still; "
            f"the control plane waits no longer ({limit} in the environment of its processes)"
        ) from error


async def _call(
    server: CodeServerClient,
    api: str,
    args: Mapping[str, Any],
    *,
    instance: Packed,
    seconds: float,
) -> str:
    if api == requests.GET_EXTERNAL_NOTEBOOK_DATA:
        path = str(args.get("notebook_path"))
        return (await server.notebook(path, deadline_seconds=seconds)).decode()
    if api == requests.REFRESH_COMPONENT_STATE:
        return await server.refresh_components(_keys(args), deadline_seconds=seconds)
    server_call = _CALLS[api]
    serialized = dumps(args)
    if server_call.with_instance:
        serialized = requests.with_instance_ref(args, instance)
    return await server.call(server_call.call, serialized, deadline_seconds=seconds)


def _keys(args: Mapping[str, Any]) -> list[str]:
    given = args.get("defs_state_keys") or []
    if not isinstance(given, list) or not all(isinstance(key, str) for key in given):
        raise ControlPlaneError("a request about components whose defs_state_keys are no names")
    return given
