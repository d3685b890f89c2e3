"""A client of one code server: Dagster's gRPC service over a local unix socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from hpc_agent.errors import (
    CodeServerError,
    CodeServerTimeoutError,
    CodeServerUnavailableError,
)
from hpc_agent.grpc.messages import PACKAGE, message_class

# dagster/_grpc/utils.py: DEFAULT_GRPC_TIMEOUT, DEFAULT_REPOSITORY_GRPC_TIMEOUT.
DEFAULT_TIMEOUT_SECONDS = 60.0
REPOSITORY_TIMEOUT_SECONDS = 180.0
_KEEPALIVE_MS = 30_000


@dataclass(frozen=True, slots=True)
class UnaryCall:
    """One call whose single argument and single answer are strings of serdes JSON."""

    method: str
    argument: str
    answer: str
    streaming_method: str | None = None


EXECUTION_PLAN = UnaryCall(
    "ExecutionPlanSnapshot",
    "serialized_execution_plan_snapshot_args",
    "serialized_execution_plan_snapshot",
)
JOB_SUBSET = UnaryCall(
    "ExternalPipelineSubsetSnapshot",
    "serialized_pipeline_subset_snapshot_args",
    "serialized_external_pipeline_subset_result",
)
PARTITION_NAMES = UnaryCall(
    "ExternalPartitionNames",
    "serialized_partition_names_args",
    "serialized_external_partition_names_or_external_partition_execution_error",
)
PARTITION_CONFIG = UnaryCall(
    "ExternalPartitionConfig",
    "serialized_partition_args",
    "serialized_external_partition_config_or_external_partition_execution_error",
)
PARTITION_TAGS = UnaryCall(
    "ExternalPartitionTags",
    "serialized_partition_args",
    "serialized_external_partition_tags_or_external_partition_execution_error",
)
PARTITION_SET = UnaryCall(
    "",
    "serialized_partition_set_execution_param_args",
    "",
    streaming_method="ExternalPartitionSetExecutionParams",
)
# Servers before Sync… existed have only the streaming call.
SCHEDULE = UnaryCall(
    "SyncExternalScheduleExecution",
    "serialized_external_schedule_execution_args",
    "serialized_schedule_result",
    streaming_method="ExternalScheduleExecution",
)
SENSOR = UnaryCall(
    "SyncExternalSensorExecution",
    "serialized_external_sensor_execution_args",
    "serialized_sensor_result",
    streaming_method="ExternalSensorExecution",
)


class CodeServerClient:
    """Calls of one code server.

    Every method raises CodeServerUnavailableError when the server does not answer and
    CodeServerError when it fails the call; errors of user code are part of the answers.
    """

    def __init__(self, socket: Path) -> None:
        _hold_grpc_open()
        self._channel = grpc.aio.insecure_channel(
            f"unix:{socket}",
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.max_reconnect_backoff_ms", 5_000),
                ("grpc.initial_reconnect_backoff_ms", 200),
                # gRPC would take the path of the socket for a host name of the proxy's.
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._is_closed = False
        self.answers = 0
        """How many calls the server has answered, be it with an error."""

    async def close(self) -> None:
        """Close the channel; calls that are going on raise CodeServerUnavailableError."""
        self._is_closed = True
        await self._channel.close()

    async def call(
        self, call: UnaryCall, serialized: str, *, deadline_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> str:
        """Make one of the calls above and return the serialized answer."""
        arguments = {call.argument: serialized}
        if not call.method:
            return await self._joined(str(call.streaming_method), arguments, deadline_seconds)
        try:
            reply = await self._unary(call.method, arguments, deadline_seconds)
        except _UnimplementedError:
            if call.streaming_method is None:
                raise
            return await self._joined(call.streaming_method, arguments, deadline_seconds)
        return str(getattr(reply, call.answer))

    async def ping(self, *, deadline_seconds: float = 10.0) -> None:
        """Ask for a sign of life."""
        await self._unary("Ping", {"echo": "hpc-agent"}, deadline_seconds, request="Ping")

    async def server_id(self, *, deadline_seconds: float = 10.0) -> str:
        """Return the id that the server made at its start."""
        reply = await self._unary("GetServerId", {}, deadline_seconds, request="Empty")
        return str(reply.server_id)

    async def list_repositories(
        self, *, deadline_seconds: float = REPOSITORY_TIMEOUT_SECONDS
    ) -> str:
        """Return a serialized ListRepositoriesResponse, or the error of loading the code."""
        reply = await self._unary("ListRepositories", {}, deadline_seconds)
        return str(reply.serialized_list_repositories_response_or_error)

    async def repository(
        self, serialized_origin: str, *, deadline_seconds: float = REPOSITORY_TIMEOUT_SECONDS
    ) -> str:
        """Return a serialized RepositorySnap, its job snapshots left out."""
        stream = self._channel.unary_stream(
            f"/{PACKAGE}.DagsterApi/StreamingExternalRepository",
            request_serializer=_serialize,
            response_deserializer=message_class("StreamingExternalRepositoryEvent").FromString,
        )
        request = message_class("ExternalRepositoryRequest")(
            serialized_repository_python_origin=serialized_origin, defer_snapshots=True
        )
        chunks = await self._collect(
            stream(request, timeout=deadline_seconds), "StreamingExternalRepository"
        )
        return "".join(chunk.serialized_external_repository_chunk for chunk in chunks)

    async def job(
        self,
        serialized_origin: str,
        name: str,
        *,
        deadline_seconds: float = REPOSITORY_TIMEOUT_SECONDS,
    ) -> str:
        """Return a serialized JobDataSnap. Raises CodeServerError with what user code raised."""
        reply = await self._unary(
            "ExternalJob",
            {"serialized_repository_origin": serialized_origin, "job_name": name},
            deadline_seconds,
        )
        if not reply.serialized_job_data:
            raise CodeServerError(f"job {name}: {reply.serialized_error or 'no data'}")
        return str(reply.serialized_job_data)

    async def notebook(
        self, path: str, *, deadline_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> bytes:
        """Return the content of a notebook."""
        reply = await self._unary("ExternalNotebookData", {"notebook_path": path}, deadline_seconds)
        return bytes(reply.content)

    async def refresh_components(
        self, keys: Sequence[str], *, deadline_seconds: float = REPOSITORY_TIMEOUT_SECONDS
    ) -> str:
        """Refresh state-backed components; return the new state's info or the error."""
        reply = await self._unary(
            "RefreshComponentState", {"defs_state_keys": list(keys)}, deadline_seconds
        )
        return str(reply.serialized_error or reply.serialized_defs_state_info)

    async def _unary(
        self,
        method: str,
        arguments: dict[str, Any],
        deadline_seconds: float,
        *,
        request: str | None = None,
    ) -> Any:
        stem = request or method.removeprefix("Sync")
        request_class = message_class(stem if stem == "Empty" else f"{stem}Request")
        reply_class = message_class(f"{method.removeprefix('Sync')}Reply")
        call = self._channel.unary_unary(
            f"/{PACKAGE}.DagsterApi/{method}",
            request_serializer=_serialize,
            response_deserializer=reply_class.FromString,
        )
        with self._calling(method):
            return await call(
                request_class(**arguments), timeout=deadline_seconds, wait_for_ready=True
            )

    async def _joined(
        self,
        method: str,
        arguments: dict[str, Any],
        deadline_seconds: float,
    ) -> str:
        stream = self._channel.unary_stream(
            f"/{PACKAGE}.DagsterApi/{method}",
            request_serializer=_serialize,
            response_deserializer=message_class("StreamingChunkEvent").FromString,
        )
        request = message_class(f"{method}Request")(**arguments)
        chunks = await self._collect(stream(request, timeout=deadline_seconds), method)
        return "".join(chunk.serialized_chunk for chunk in chunks)

    async def _collect(self, stream: Any, method: str) -> list[Any]:
        with self._calling(method):
            return [chunk async for chunk in stream]

    @contextmanager
    def _calling(self, method: str) -> Iterator[None]:
        """Count the answer of a call, and translate what grpc raises instead of one."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            translated = _translated(error, method)
            self.answers += not isinstance(translated, CodeServerUnavailableError)
            raise translated from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            # Closing a channel cancels its calls, as if somebody had cancelled their tasks.
            task = asyncio.current_task()
            if not self._is_closed or (task is not None and task.cancelling()):
                raise
            raise CodeServerUnavailableError(f"{method}: the code server was ended") from error
        self.answers += 1


class _UnimplementedError(CodeServerError):
    """The code server's dagster is older than this call."""


@cache
def _hold_grpc_open() -> None:
    """Keep gRPC's own thread for as long as this process lives.

    gRPC counts its channels and, with the last, joins that thread: when the garbage collector comes
    by, so in the middle of whatever the event loop is doing.
    Source: grpc/_cython/_cygrpc/aio/grpc_aio.pyx.pxi, completion_queue.pyx.pxi.
    """
    grpc.aio.init_grpc_aio()


def _translated(error: grpc.aio.AioRpcError, method: str) -> CodeServerError:
    words = f"{method}: {error.code().name}: {error.details()}"
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return _UnimplementedError(words)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CodeServerTimeoutError(words)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return CodeServerUnavailableError(words)
    return CodeServerError(words)


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


# gRPC's C core logs every failed connection attempt of a server that is still starting.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
