"""What the agent answers to requests (dagster_cloud/api/dagster_cloud_api.py)."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_agent.dagster_plus.serdes import Packed, error_info, packed

_FAILURE = "DagsterCloudApiErrorResponse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a request was taken up, started and finished; the control plane shows it."""

    received_at: float
    started_at: float
    finished_at: float


def success() -> Packed:
    """The request was carried out."""
    return packed("DagsterCloudApiSuccess", thread_telemetry=None)


def grpc_answer(serialized: str) -> Packed:
    """What the code server said, unopened."""
    return packed(
        "DagsterCloudApiGrpcResponse",
        serialized_response_or_error=serialized,
        thread_telemetry=None,
    )


def failure(error: Packed | str) -> Packed:
    """The request could not be carried out."""
    info = error_info(error) if isinstance(error, str) else error
    return packed(_FAILURE, error_infos=[info], thread_telemetry=None)


def is_failure(response: Packed | None) -> bool:
    """Whether it says that something went wrong."""
    return response is not None and response["__class__"] == _FAILURE


def unknown(api: str) -> Packed:
    """This agent does not know the request; the control plane goes on without it."""
    return packed("DagsterCloudApiUnknownCommandResponse", request_api=api, thread_telemetry=None)


def upload(request_id: str, api: str, response: Packed, timing: Timing) -> Packed:
    """Return the body of ``PUT /upload_api_response``."""
    telemetry = packed(
        "DagsterCloudApiThreadTelemetry",
        submitted_to_executor_timestamp=timing.received_at,
        thread_start_run_timestamp=timing.started_at,
        thread_end_handle_api_request_timestamp=timing.finished_at,
    )
    return packed(
        "DagsterCloudUploadApiResponse",
        request_id=request_id,
        request_api=api,
        response={**response, "thread_telemetry": telemetry},
    )
