"""The gRPC service of one face: Dagster's ``api.DagsterApi``, as webserver and daemon call it.

Definitions come from the snapshot on disk; runs become durable requests; the rest is asked of an
agent. Method names are those of dagster/_grpc/protos/dagster_api.proto.
"""
# ruff: noqa: N802 the method names are the protocol's

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.remote_representation.external_data import RepositoryErrorSnap
from dagster._grpc.__generated__ import dagster_api_pb2 as pb
from dagster._grpc.__generated__.dagster_api_pb2_grpc import DagsterApiServicer
from dagster._grpc.types import (
    CanCancelExecutionRequest,
    CanCancelExecutionResult,
    CancelExecutionRequest,
    ExecuteExternalJobArgs,
    GetCurrentImageResult,
    GetCurrentRunsResult,
    NotebookPathArgs,
    ShutdownServerResult,
)
from dagster_cloud.api.dagster_cloud_api import (
    DagsterCloudCodeLocationManifest,
    RefreshComponentStateArgs,
)
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import deserialize_value, serialize_value

from hpc_agent.control_plane.faces import agent_calls as calls
from hpc_agent.control_plane.faces.agent_calls import AgentCall, AgentCaller
from hpc_agent.control_plane.faces.repositories import RepositoryReader
from hpc_agent.control_plane.faces.view import LocationView, error_info
from hpc_agent.control_plane.run_requests import RunRequests
from hpc_agent.errors import ControlPlaneRefusedError, HpcAgentError

CHUNK_CHARACTERS = 4_000_000
"""dagster/_grpc/server.py streams in chunks of this size: gRPC messages are bounded."""

Context: TypeAlias = Any  # grpc.aio.ServicerContext, which is generic in its stubs only


class Face(DagsterApiServicer):
    """One location as a code server. ``view`` is replaced when the location changes."""

    def __init__(
        self,
        view: LocationView,
        *,
        repositories: RepositoryReader,
        caller: AgentCaller,
        runs: RunRequests,
        redeploy: Callable[[LocationView], Awaitable[None]],
    ) -> None:
        self.view = view
        self._repositories = repositories
        self._caller = caller
        self._runs = runs
        self._redeploy = redeploy

    # -- the server itself

    async def Ping(self, request: pb.PingRequest, _context: Context) -> pb.PingReply:
        return pb.PingReply(echo=request.echo)

    async def Heartbeat(self, request: pb.PingRequest, _context: Context) -> pb.PingReply:
        return pb.PingReply(echo=request.echo)

    async def StreamingPing(
        self, request: pb.StreamingPingRequest, _context: Context
    ) -> AsyncIterator[pb.StreamingPingEvent]:
        for number in range(request.sequence_length):
            yield pb.StreamingPingEvent(sequence_number=number, echo=request.echo)

    async def GetServerId(self, _request: pb.Empty, _context: Context) -> pb.GetServerIdReply:
        return pb.GetServerIdReply(server_id=self.view.server_id)

    async def GetCurrentImage(
        self, _request: pb.Empty, _context: Context
    ) -> pb.GetCurrentImageReply:
        image = self.view.manifest.container_image if self.view.manifest else None
        result = GetCurrentImageResult(current_image=image, serializable_error_info=None)
        return pb.GetCurrentImageReply(serialized_current_image=serialize_value(result))

    async def GetCurrentRuns(self, _request: pb.Empty, _context: Context) -> pb.GetCurrentRunsReply:
        result = GetCurrentRunsResult(current_runs=[], serializable_error_info=None)
        return pb.GetCurrentRunsReply(serialized_current_runs=serialize_value(result))

    async def ShutdownServer(self, _request: pb.Empty, _context: Context) -> pb.ShutdownServerReply:
        result = ShutdownServerResult(success=True, serializable_error_info=None)
        return pb.ShutdownServerReply(serialized_shutdown_server_result=serialize_value(result))

    async def ReloadCode(
        self, _request: pb.ReloadCodeRequest, _context: Context
    ) -> pb.ReloadCodeReply:
        await self._redeploy(self.view)
        return pb.ReloadCodeReply()

    async def ReloadCodeWithState(
        self, _request: pb.ReloadCodeWithStateRequest, _context: Context
    ) -> pb.ReloadCodeWithStateReply:
        await self._redeploy(self.view)
        return pb.ReloadCodeWithStateReply(serialized_server_id=self.view.server_id)

    # -- definitions, from the snapshot

    async def ListRepositories(
        self, _request: pb.ListRepositoriesRequest, _context: Context
    ) -> pb.ListRepositoriesReply:
        return pb.ListRepositoriesReply(
            serialized_list_repositories_response_or_error=serialize_value(self.view.repositories())
        )

    async def ExternalRepository(
        self, request: pb.ExternalRepositoryRequest, _context: Context
    ) -> pb.ExternalRepositoryReply:
        return pb.ExternalRepositoryReply(
            serialized_external_repository_data=await self._repository(request)
        )

    async def StreamingExternalRepository(
        self, request: pb.ExternalRepositoryRequest, _context: Context
    ) -> AsyncIterator[pb.StreamingExternalRepositoryEvent]:
        for number, chunk in enumerate(_chunks(await self._repository(request))):
            yield pb.StreamingExternalRepositoryEvent(
                sequence_number=number, serialized_external_repository_chunk=chunk
            )

    async def ExternalJob(
        self, request: pb.ExternalJobRequest, _context: Context
    ) -> pb.ExternalJobReply:
        origin = deserialize_value(request.serialized_repository_origin, RemoteRepositoryOrigin)
        try:
            job = await asyncio.to_thread(
                self._repositories.job, self._manifest(), origin.repository_name, request.job_name
            )
        except (HpcAgentError, OSError) as error:
            return pb.ExternalJobReply(serialized_error=serialize_value(error_info(str(error))))
        return pb.ExternalJobReply(serialized_job_data=job)

    # -- runs

    async def StartRun(self, request: pb.StartRunRequest, _context: Context) -> pb.StartRunReply:
        args = deserialize_value(request.serialized_execute_run_args, ExecuteExternalJobArgs)
        result = await self._runs.start(args.run_id, self.view)
        return pb.StartRunReply(serialized_start_run_result=serialize_value(result))

    async def CancelExecution(
        self, request: pb.CancelExecutionRequest, _context: Context
    ) -> pb.CancelExecutionReply:
        args = deserialize_value(
            request.serialized_cancel_execution_request, CancelExecutionRequest
        )
        result = await self._runs.cancel(args.run_id, self.view)
        return pb.CancelExecutionReply(serialized_cancel_execution_result=serialize_value(result))

    async def CanCancelExecution(
        self, request: pb.CanCancelExecutionRequest, _context: Context
    ) -> pb.CanCancelExecutionReply:
        args = deserialize_value(
            request.serialized_can_cancel_execution_request, CanCancelExecutionRequest
        )
        result = CanCancelExecutionResult(can_cancel=await self._runs.can_cancel(args.run_id))
        return pb.CanCancelExecutionReply(
            serialized_can_cancel_execution_result=serialize_value(result)
        )

    # -- user code, through an agent

    async def ExecutionPlanSnapshot(
        self, request: pb.ExecutionPlanSnapshotRequest, context: Context
    ) -> pb.ExecutionPlanSnapshotReply:
        args = request.serialized_execution_plan_snapshot_args
        answer = await self._ask(calls.EXECUTION_PLAN, args, context)
        return pb.ExecutionPlanSnapshotReply(serialized_execution_plan_snapshot=answer)

    async def ExternalPipelineSubsetSnapshot(
        self, request: pb.ExternalPipelineSubsetSnapshotRequest, context: Context
    ) -> pb.ExternalPipelineSubsetSnapshotReply:
        args = request.serialized_pipeline_subset_snapshot_args
        answer = await self._ask(calls.JOB_SUBSET, args, context)
        return pb.ExternalPipelineSubsetSnapshotReply(
            serialized_external_pipeline_subset_result=answer
        )

    async def ExternalPartitionNames(
        self, request: pb.ExternalPartitionNamesRequest, context: Context
    ) -> pb.ExternalPartitionNamesReply:
        args = request.serialized_partition_names_args
        answer = await self._ask(calls.PARTITION_NAMES, args, context)
        return pb.ExternalPartitionNamesReply(
            serialized_external_partition_names_or_external_partition_execution_error=answer
        )

    async def ExternalPartitionConfig(
        self, request: pb.ExternalPartitionConfigRequest, context: Context
    ) -> pb.ExternalPartitionConfigReply:
        answer = await self._ask(calls.PARTITION_CONFIG, request.serialized_partition_args, context)
        return pb.ExternalPartitionConfigReply(
            serialized_external_partition_config_or_external_partition_execution_error=answer
        )

    async def ExternalPartitionTags(
        self, request: pb.ExternalPartitionTagsRequest, context: Context
    ) -> pb.ExternalPartitionTagsReply:
        answer = await self._ask(calls.PARTITION_TAGS, request.serialized_partition_args, context)
        return pb.ExternalPartitionTagsReply(
            serialized_external_partition_tags_or_external_partition_execution_error=answer
        )

    async def ExternalPartitionSetExecutionParams(
        self, request: pb.ExternalPartitionSetExecutionParamsRequest, context: Context
    ) -> AsyncIterator[pb.StreamingChunkEvent]:
        args = request.serialized_partition_set_execution_param_args
        for event in _events(await self._ask(calls.PARTITION_SET, args, context)):
            yield event

    async def ExternalScheduleExecution(
        self, request: pb.ExternalScheduleExecutionRequest, context: Context
    ) -> AsyncIterator[pb.StreamingChunkEvent]:
        args = request.serialized_external_schedule_execution_args
        for event in _events(await self._ask(calls.SCHEDULE, args, context)):
            yield event

    async def SyncExternalScheduleExecution(
        self, request: pb.ExternalScheduleExecutionRequest, context: Context
    ) -> pb.ExternalScheduleExecutionReply:
        args = request.serialized_external_schedule_execution_args
        answer = await self._ask(calls.SCHEDULE, args, context)
        return pb.ExternalScheduleExecutionReply(serialized_schedule_result=answer)

    async def ExternalSensorExecution(
        self, request: pb.ExternalSensorExecutionRequest, context: Context
    ) -> AsyncIterator[pb.StreamingChunkEvent]:
        args = request.serialized_external_sensor_execution_args
        for event in _events(await self._ask(calls.SENSOR, args, context)):
            yield event

    async def SyncExternalSensorExecution(
        self, request: pb.ExternalSensorExecutionRequest, context: Context
    ) -> pb.ExternalSensorExecutionReply:
        args = request.serialized_external_sensor_execution_args
        answer = await self._ask(calls.SENSOR, args, context)
        return pb.ExternalSensorExecutionReply(serialized_sensor_result=answer)

    async def ExternalNotebookData(
        self, request: pb.ExternalNotebookDataRequest, context: Context
    ) -> pb.ExternalNotebookDataReply:
        args = NotebookPathArgs(
            code_location_origin=RegisteredCodeLocationOrigin(self.view.name),
            notebook_path=request.notebook_path,
        )
        answer = await self._caller.call(calls.NOTEBOOK, args, self.view, context.time_remaining())
        return pb.ExternalNotebookDataReply(content=answer.encode())

    async def RefreshComponentState(
        self, request: pb.RefreshComponentStateRequest, context: Context
    ) -> pb.RefreshComponentStateReply:
        args = RefreshComponentStateArgs(
            location_name=self.view.name, defs_state_keys=list(request.defs_state_keys)
        )
        answer = await self._caller.call(
            calls.COMPONENT_STATE, args, self.view, context.time_remaining()
        )
        if isinstance(deserialize_value(answer), SerializableErrorInfo):
            return pb.RefreshComponentStateReply(serialized_error=answer)
        return pb.RefreshComponentStateReply(serialized_defs_state_info=answer)

    # -- helpers of the above

    async def _ask(self, call: AgentCall, serialized_args: str, context: Context) -> str:
        args = deserialize_value(serialized_args, call.args)
        return await self._caller.call(call, args, self.view, context.time_remaining())

    async def _repository(self, request: pb.ExternalRepositoryRequest) -> str:
        origin = deserialize_value(
            request.serialized_repository_python_origin, RemoteRepositoryOrigin
        )
        try:
            return await asyncio.to_thread(
                self._repositories.repository, self._manifest(), origin.repository_name,
                defer_snapshots=request.defer_snapshots,
            )  # fmt: skip
        except (HpcAgentError, OSError) as error:
            return serialize_value(RepositoryErrorSnap(error=error_info(str(error))))

    def _manifest(self) -> DagsterCloudCodeLocationManifest:
        if self.view.manifest is None:
            raise ControlPlaneRefusedError(
                f"code location {self.view.name!r} has no definitions at the moment"
            )
        return self.view.manifest


def _chunks(text: str) -> list[str]:
    return [
        text[start : start + CHUNK_CHARACTERS] for start in range(0, len(text), CHUNK_CHARACTERS)
    ]


def _events(answer: str) -> list[pb.StreamingChunkEvent]:
    return [
        pb.StreamingChunkEvent(sequence_number=number, serialized_chunk=chunk)
        for number, chunk in enumerate(_chunks(answer))
    ]
