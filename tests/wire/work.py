"""The work that both agents are given: the same requests, and the same runs."""

from __future__ import annotations

import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster._core.remote_origin import (
        RegisteredCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )
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
        DagsterCloudApiRequest,
        PingLocationArgs,
        RefreshComponentStateArgs,
    )
    from dagster_shared.serdes import serialize_value

LOCATION = "wire"
_FAR_AWAY = 4_000_000_000.0
_LOCATION_ORIGIN = RegisteredCodeLocationOrigin(LOCATION)
_REPOSITORY = RemoteRepositoryOrigin(_LOCATION_ORIGIN, "__repository__")
_PARTITIONS = "spelling_partition_set"


def _job(name: str) -> RemoteJobOrigin:
    return RemoteJobOrigin(_REPOSITORY, name)


def _partition(name: str) -> PartitionArgs:
    return PartitionArgs(
        repository_origin=_REPOSITORY, partition_set_name=_PARTITIONS, partition_name=name,
        job_name="spelling",
    )  # fmt: skip


def _plan(job: str) -> ExecutionPlanSnapshotArgs:
    return ExecutionPlanSnapshotArgs(
        job_origin=_job(job), op_selection=[], run_config={}, step_keys_to_execute=None,
        job_snapshot_id="0" * 40,
    )  # fmt: skip


def _sensor(name: str) -> SensorExecutionArgs:
    return SensorExecutionArgs(
        repository_origin=_REPOSITORY, instance_ref=None, sensor_name=name, cursor="7", timeout=30
    )


# Every request of the agent API that is about a code location, with what goes wrong besides.
_SERVER_REQUESTS: dict[str, tuple[DagsterCloudApi, Any]] = {
    "execution plan": (DagsterCloudApi.GET_EXTERNAL_EXECUTION_PLAN, _plan("sums")),
    "execution plan of no job": (DagsterCloudApi.GET_EXTERNAL_EXECUTION_PLAN, _plan("none")),
    "job subset": (
        DagsterCloudApi.GET_SUBSET_EXTERNAL_PIPELINE_RESULT,
        JobSubsetSnapshotArgs(
            job_origin=_job("spelling"), op_selection=["spell"], include_parent_snapshot=False
        ),
    ),
    "partition names": (
        DagsterCloudApi.GET_EXTERNAL_PARTITION_NAMES,
        PartitionNamesArgs(
            repository_origin=_REPOSITORY, partition_set_name=_PARTITIONS, job_name="spelling"
        ),
    ),
    "partition config": (DagsterCloudApi.GET_EXTERNAL_PARTITION_CONFIG, _partition("a")),
    "partition config that fails": (
        DagsterCloudApi.GET_EXTERNAL_PARTITION_CONFIG,
        _partition("nothing"),
    ),
    "partition tags": (DagsterCloudApi.GET_EXTERNAL_PARTITION_TAGS, _partition("b")),
    "partition set": (
        DagsterCloudApi.GET_EXTERNAL_PARTITION_SET_EXECUTION_PARAM_DATA,
        PartitionSetExecutionParamArgs(
            repository_origin=_REPOSITORY,
            partition_set_name=_PARTITIONS,
            partition_names=["a", "b"],
        ),
    ),
    "schedule": (
        DagsterCloudApi.GET_EXTERNAL_SCHEDULE_EXECUTION_DATA,
        ExternalScheduleExecutionArgs(
            repository_origin=_REPOSITORY,
            instance_ref=None,
            schedule_name="yearly",
            scheduled_execution_timestamp=1_735_689_600.0,
            scheduled_execution_timezone="UTC",
            timeout=30,
        ),
    ),
    "sensor": (DagsterCloudApi.GET_EXTERNAL_SENSOR_EXECUTION_DATA, _sensor("watcher")),
    "sensor that fails": (
        DagsterCloudApi.GET_EXTERNAL_SENSOR_EXECUTION_DATA,
        _sensor("failing"),
    ),
    "ping of a location": (
        DagsterCloudApi.PING_LOCATION,
        PingLocationArgs(location_name=LOCATION),
    ),
    "refresh of components": (
        DagsterCloudApi.REFRESH_COMPONENT_STATE,
        RefreshComponentStateArgs(location_name=LOCATION, defs_state_keys=[]),
    ),
    "notebook that is not there": (
        DagsterCloudApi.GET_EXTERNAL_NOTEBOOK_DATA,
        NotebookPathArgs(code_location_origin=_LOCATION_ORIGIN, notebook_path="/nowhere.ipynb"),
    ),
    "request of a location that is not there": (
        DagsterCloudApi.GET_EXTERNAL_PARTITION_NAMES,
        PartitionNamesArgs(
            repository_origin=RemoteRepositoryOrigin(
                RegisteredCodeLocationOrigin("nowhere"), "__repository__"
            ),
            partition_set_name=_PARTITIONS,
        ),
    ),
    "workspace check": (DagsterCloudApi.CHECK_FOR_WORKSPACE_UPDATES, None),
    "deprecated request": (DagsterCloudApi.CHECK_STEP_HEALTH, None),
}


def requests() -> list[dict[str, Any]]:
    """Return the requests as a poll hands them out; their ids are what they are about."""
    made = [_popped(name, api, args) for name, (api, args) in _SERVER_REQUESTS.items()]
    unknown = {**made[-1], "requestId": "unknown request", "requestApi": "MAKE_COFFEE"}
    return [*made, unknown]


def _popped(name: str, api: DagsterCloudApi, args: Any) -> dict[str, Any]:
    body = DagsterCloudApiRequest(
        request_id=name, request_api=api, request_args=args, deployment_name="prod",
        expire_at=_FAR_AWAY, is_branch_deployment=False,
    )  # fmt: skip
    return {
        "requestId": name,
        "requestApi": api.name,
        "requestBody": serialize_value(body),
        "deploymentName": "prod",
        "isBranchDeployment": False,
    }
