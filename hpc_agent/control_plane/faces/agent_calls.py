"""Calls that only user code can answer: sent to an agent, waited for, its answer passed through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.remote_representation.external_data import (
    PartitionExecutionErrorSnap,
    RemoteJobSubsetResult,
    ScheduleExecutionErrorSnap,
    SensorExecutionErrorSnap,
)
from dagster._core.snap.execution_plan_snapshot import ExecutionPlanSnapshotErrorData
from dagster._grpc.types import (
    ExecutionPlanSnapshotArgs,
    ExternalScheduleExecutionArgs,
    JobSubsetSnapshotArgs,
    NotebookPathArgs,
    PartitionArgs,
    PartitionNamesArgs,
    PartitionSetExecutionParamArgs,
    SensorExecutionArgs,
)
from dagster_cloud.api.dagster_cloud_api import (
    DagsterCloudApi,
    DagsterCloudApiErrorResponse,
    DagsterCloudApiGrpcResponse,
    RefreshComponentStateArgs,
)
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.record import copy
from dagster_shared.serdes import deserialize_value, serialize_value
from dagster_shared.serdes.serdes import PackableValue

from hpc_agent.control_plane.agents_seen import agents_seen
from hpc_agent.control_plane.faces.view import LocationView, error_info
from hpc_agent.control_plane.presence import AgentPresence
from hpc_agent.control_plane.request_queue import Ask, RequestQueue
from hpc_agent.control_plane.store.agents import Agents

DEFAULT_TIMEOUT_SECONDS = 60.0
WITHOUT_AGENT_SECONDS = 5.0
"""How long to wait when no agent is around: long enough for one that is just starting."""

ANSWER_MARGIN_SECONDS = 1.0
"""Our explanation must arrive before the caller's own deadline cuts it off."""


@dataclass(frozen=True, slots=True)
class AgentCall:
    """One kind of call: its request to the agent and the shape of its errors."""

    api: DagsterCloudApi
    args: type
    error: Callable[[SerializableErrorInfo], PackableValue]


def _subset_error(error: SerializableErrorInfo) -> PackableValue:
    return RemoteJobSubsetResult(success=False, error=error)


EXECUTION_PLAN: Final = AgentCall(
    DagsterCloudApi.GET_EXTERNAL_EXECUTION_PLAN,
    ExecutionPlanSnapshotArgs,
    lambda error: ExecutionPlanSnapshotErrorData(error=error),
)
JOB_SUBSET: Final = AgentCall(
    DagsterCloudApi.GET_SUBSET_EXTERNAL_PIPELINE_RESULT, JobSubsetSnapshotArgs, _subset_error
)
PARTITION_NAMES: Final = AgentCall(
    DagsterCloudApi.GET_EXTERNAL_PARTITION_NAMES,
    PartitionNamesArgs,
    lambda error: PartitionExecutionErrorSnap(error=error),
)
PARTITION_CONFIG: Final = AgentCall(
    DagsterCloudApi.GET_EXTERNAL_PARTITION_CONFIG,
    PartitionArgs,
    lambda error: PartitionExecutionErrorSnap(error=error),
)
PARTITION_TAGS: Final = AgentCall(
    DagsterCloudApi.GET_EXTERNAL_PARTITION_TAGS,
    PartitionArgs,
    lambda error: PartitionExecutionErrorSnap(error=error),
)
PARTITION_SET: Final = AgentCall(
    DagsterCloudApi.GET_EXTERNAL_PARTITION_SET_EXECUTION_PARAM_DATA,
    PartitionSetExecutionParamArgs,
    lambda error: PartitionExecutionErrorSnap(error=error),
)
SCHEDULE: Final = AgentCall(
    DagsterCloudApi.GET_EXTERNAL_SCHEDULE_EXECUTION_DATA,
    ExternalScheduleExecutionArgs,
    lambda error: ScheduleExecutionErrorSnap(error=error),
)
SENSOR: Final = AgentCall(
    DagsterCloudApi.GET_EXTERNAL_SENSOR_EXECUTION_DATA,
    SensorExecutionArgs,
    lambda error: SensorExecutionErrorSnap(error=error),
)
NOTEBOOK: Final = AgentCall(
    DagsterCloudApi.GET_EXTERNAL_NOTEBOOK_DATA, NotebookPathArgs, lambda error: error
)
COMPONENT_STATE: Final = AgentCall(
    DagsterCloudApi.REFRESH_COMPONENT_STATE, RefreshComponentStateArgs, lambda error: error
)


class AgentCaller:
    """Sends calls to agents and waits for the answers."""

    def __init__(self, queue: RequestQueue, presence: AgentPresence, agents: Agents) -> None:
        self._queue = queue
        self._presence = presence
        self._agents = agents

    async def call(
        self, call: AgentCall, args: Any, view: LocationView, time_remaining: float | None
    ) -> str:
        """Return the agent's serialized answer, or a serialized error that says what is wrong."""
        patience = max((time_remaining or DEFAULT_TIMEOUT_SECONDS) - ANSWER_MARGIN_SECONDS, 0.1)
        if not self._presence.any_alive():
            patience = min(patience, WITHOUT_AGENT_SECONDS)
        ask = Ask(
            api=call.api, args=for_agent(args, view.name), deployment=view.deployment,
            is_branch=view.is_branch, agent_queue=view.agent_queue, timeout_seconds=patience,
        )  # fmt: skip
        request_id = await self._queue.enqueue(ask)
        request = await self._queue.wait_for_answer(request_id, patience)
        if request is None or request.response is None:
            is_taken = not await self._queue.withdraw(request_id)
            words = await asyncio.to_thread(self._silence, call, view, patience, is_taken=is_taken)
            return serialize_value(call.error(error_info(words)))
        return _answer(call, request.response)

    def _silence(
        self, call: AgentCall, view: LocationView, patience: float, *, is_taken: bool
    ) -> str:
        """Say what is known of why no answer came; blocking."""
        seen = agents_seen(self._agents, self._presence)
        heard = seen.last_heartbeat_ago()
        queue = f" that serves agent queue {view.agent_queue!r}" if view.agent_queue else ""
        about = f"{call.api.name} for code location {view.name!r}"
        if is_taken:
            server = self._agents.code_servers().get((view.deployment, view.name))
            told = f"; of its code server it said: {server.message}" if server else ""
            return (
                f"an agent{queue} has taken {about} and not answered within {patience:.0f} s; "
                f"{heard}{told}"
            )
        if not seen.is_any_alive:
            return (
                f"no agent is connected, and code location {view.name!r} needs one for "
                f"{call.api.name}; {heard}: check that `hpc-agent start` is running"
            )
        return f"no agent{queue} has taken {about} within {patience:.0f} s; {heard}"


def for_agent(args: Any, location_name: str) -> Any:
    """Return call arguments without what means something only inside the control plane.

    The face's socket becomes the location's name, and the instance reference goes: the agent fills
    in one that works where user code runs.
    """
    changes: dict[str, object] = {}
    if hasattr(args, "repository_origin"):
        changes["repository_origin"] = _registered(args.repository_origin, location_name)
    if hasattr(args, "job_origin"):
        origin = _registered(args.job_origin.repository_origin, location_name)
        changes["job_origin"] = copy(args.job_origin, repository_origin=origin)
    if hasattr(args, "instance_ref"):
        changes["instance_ref"] = None
    return copy(args, **changes) if changes else args


def _registered(origin: RemoteRepositoryOrigin, location_name: str) -> RemoteRepositoryOrigin:
    return copy(origin, code_location_origin=RegisteredCodeLocationOrigin(location_name))


def _answer(call: AgentCall, response: str) -> str:
    answer = deserialize_value(response)
    if isinstance(answer, DagsterCloudApiGrpcResponse):
        return str(answer.serialized_response_or_error)
    if isinstance(answer, DagsterCloudApiErrorResponse) and answer.error_infos:
        return serialize_value(call.error(answer.error_infos[0]))
    text = f"the agent does not know {call.api.name}: upgrade it"
    return serialize_value(call.error(error_info(text)))
