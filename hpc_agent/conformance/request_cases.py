"""Every kind of request, made by a call on a location's face and answered by the stock agent.

The call is the one that webserver and daemon make, on the face's unix socket. What comes back must
equal what the same call gives at a code server with the same code.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.origin import (
    DEFAULT_DAGSTER_ENTRY_POINT,
    JobPythonOrigin,
    RepositoryPythonOrigin,
)
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.remote_representation.external_data import (
    PartitionConfigSnap,
    PartitionNamesSnap,
    PartitionSetExecutionParamSnap,
    PartitionTagsSnap,
    RemoteJobSubsetResult,
)
from dagster._core.snap import ExecutionPlanSnapshot
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import (
    CancelExecutionRequest,
    CancelExecutionResult,
    ExecuteExternalJobArgs,
    ExecutionPlanSnapshotArgs,
    ExternalScheduleExecutionArgs,
    JobSubsetSnapshotArgs,
    ListRepositoriesResponse,
    PartitionArgs,
    PartitionNamesArgs,
    PartitionSetExecutionParamArgs,
    SensorExecutionArgs,
    StartRunResult,
)
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import deserialize_value

from hpc_agent.conformance import code_server, user_code
from hpc_agent.conformance.plane import Plane, running_plane
from hpc_agent.conformance.stock_agent import running_stock_agent
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import requests

LOCATION = "requests"
MODULE = "hpc_agent.conformance.user_code"
PARTITION_SET = "lettered_partition_set"
MIDNIGHT = 1_700_006_400.0
NOTEBOOK = '{"cells": [], "metadata": {"title": "ä"}, "nbformat": 4, "nbformat_minor": 5}'
PATIENCE_SECONDS = 120.0
BATCHED = {"DAGSTER_CLOUD_AGENT_UPLOAD_API_RESPONSE_BATCHING_ENABLED": "true"}
"""Makes the stock agent send its answers in batches."""

ORIGIN = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), "__repository__")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSetting:
    """The face of a location, a code server with the same code, and the instance behind both.

    ``notebook`` is a path in the working directory of both code servers.
    """

    plane: Plane
    face: DagsterGrpcClient
    direct: DagsterGrpcClient
    served: DagsterInstance
    notebook: Path

    def sent(self) -> set[str]:
        """Return the kinds of requests that the gateway has made."""
        with (
            contextlib.closing(Database(self.plane.home.database_url)) as database,
            database.read() as connection,
        ):
            return set(connection.scalars(sa.select(requests.c.api).distinct()))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCase:
    """A call that makes a request of this kind; ``check`` returns what is wrong, or None."""

    api: str
    check: Callable[[RequestSetting], str | None]

    def __str__(self) -> str:
        return self.api

    def problem(self, setting: RequestSetting) -> str | None:
        found = self.check(setting)
        if found is None and self.api not in setting.sent():
            return "the call was answered without a request"
        return found


def _equal(api: str, answer: type, ask: Callable[[DagsterGrpcClient, Any], str]) -> RequestCase:
    """Make a case: both sides give the same answer, which is of this type."""

    def check(setting: RequestSetting) -> str | None:
        ref = setting.served.get_ref()
        expected, actual = (
            deserialize_value(_one_python(ask(client, ref)))
            for client in (setting.direct, setting.face)
        )
        if not isinstance(expected, answer):
            return f"the case itself is wrong, a code server gives {expected}"
        return None if expected == actual else f"expected {expected}, got {actual}"

    return RequestCase(api=api, check=check)


def _one_python(answer: str) -> str:
    """Call the interpreter of this environment by one name: its links are python, python3, …"""
    binaries = Path(sys.executable).parent
    return re.sub(rf"{re.escape(str(binaries))}/python[0-9.]*", f"{binaries}/python", answer)


def _partition(name: str) -> PartitionArgs:
    return PartitionArgs(
        repository_origin=ORIGIN, partition_set_name=PARTITION_SET, partition_name=name,
        job_name="lettered",
    )  # fmt: skip


# -- definitions


_CALLS = [
    _equal("GET_EXTERNAL_EXECUTION_PLAN", ExecutionPlanSnapshot, lambda client, ref:
        client.execution_plan_snapshot(ExecutionPlanSnapshotArgs(
            job_origin=ORIGIN.get_job_origin("patient"), op_selection=[], run_config={},
            step_keys_to_execute=None, job_snapshot_id="snapshot", instance_ref=ref))),
    _equal("GET_SUBSET_EXTERNAL_PIPELINE_RESULT", RemoteJobSubsetResult, lambda client, _:
        client.external_pipeline_subset(JobSubsetSnapshotArgs(
            job_origin=ORIGIN.get_job_origin("patient"), op_selection=["wait"],
            include_parent_snapshot=True))),
    _equal("GET_EXTERNAL_PARTITION_NAMES", PartitionNamesSnap, lambda client, _:
        client.external_partition_names(PartitionNamesArgs(
            repository_origin=ORIGIN, partition_set_name=PARTITION_SET, job_name="lettered"))),
    _equal("GET_EXTERNAL_PARTITION_CONFIG", PartitionConfigSnap, lambda client, _:
        client.external_partition_config(_partition("a"))),
    _equal("GET_EXTERNAL_PARTITION_TAGS", PartitionTagsSnap, lambda client, _:
        client.external_partition_tags(_partition("b"))),
    _equal("GET_EXTERNAL_PARTITION_SET_EXECUTION_PARAM_DATA", PartitionSetExecutionParamSnap,
        lambda client, _: client.external_partition_set_execution_params(
            PartitionSetExecutionParamArgs(
                repository_origin=ORIGIN, partition_set_name=PARTITION_SET,
                partition_names=["a", "b"]))),
    _equal("GET_EXTERNAL_SCHEDULE_EXECUTION_DATA", ScheduleExecutionData, lambda client, ref:
        client.external_schedule_execution(ExternalScheduleExecutionArgs(
            repository_origin=ORIGIN, instance_ref=ref, schedule_name="nightly",
            scheduled_execution_timestamp=MIDNIGHT, scheduled_execution_timezone="UTC"))),
    _equal("GET_EXTERNAL_SENSOR_EXECUTION_DATA", SensorExecutionData, lambda client, ref:
        client.external_sensor_execution(SensorExecutionArgs(
            repository_origin=ORIGIN, instance_ref=ref, sensor_name="watcher", cursor="seven"))),
]  # fmt: skip


def _loaded(setting: RequestSetting) -> str | None:
    """The location is there: the agent was told to look, and uploaded what it found."""
    listed = deserialize_value(setting.face.list_repositories())
    return None if isinstance(listed, ListRepositoriesResponse) else str(listed)


def _notebook(setting: RequestSetting) -> str | None:
    setting.notebook.write_text(NOTEBOOK, encoding="utf-8")
    expected, actual = (
        client.external_notebook_data(str(setting.notebook))
        for client in (setting.direct, setting.face)
    )
    return None if expected == actual else f"expected {expected!r}, got {actual!r}"


def _component_state(setting: RequestSetting) -> str | None:
    """No component here keeps state: what the code server says of that comes through."""
    expected, actual = (
        deserialize_value(
            client.refresh_component_state(["nothing"]).serialized_error, SerializableErrorInfo
        ).message
        for client in (setting.direct, setting.face)
    )
    return None if expected == actual else f"expected {expected!r}, got {actual!r}"


# -- runs


def _launch(setting: RequestSetting) -> str | None:
    run = _new_run(setting.served)
    args = ExecuteExternalJobArgs(
        job_origin=ORIGIN.get_job_origin(run.job_name), run_id=run.run_id,
        instance_ref=setting.served.get_ref(),
    )  # fmt: skip
    result = deserialize_value(setting.face.start_run(args), StartRunResult)
    if not result.success:
        return f"not launched: {result.message}"
    return _await_status(setting, run.run_id, DagsterRunStatus.STARTED)


def _terminate(setting: RequestSetting) -> str | None:
    """Terminate what the case before has launched."""
    (run,) = setting.served.get_runs()
    answer = setting.face.cancel_execution(CancelExecutionRequest(run_id=run.run_id))
    if not deserialize_value(answer, CancelExecutionResult).success:
        return "not terminated"
    return _await_status(setting, run.run_id, DagsterRunStatus.CANCELED)


def _new_run(instance: DagsterInstance) -> DagsterRun:
    """Put a run into the instance, as the webserver does before it calls the launcher."""
    job = user_code.patient
    repository = RepositoryPythonOrigin(
        executable_path=sys.executable, code_pointer=ModuleCodePointer(MODULE, "defs"),
        entry_point=DEFAULT_DAGSTER_ENTRY_POINT, container_image=None,
    )  # fmt: skip
    return instance.add_run(
        DagsterRun(
            job_name=job.name, status=DagsterRunStatus.STARTING,
            job_snapshot_id=instance.run_storage.add_job_snapshot(job.get_job_snapshot()),
            remote_job_origin=ORIGIN.get_job_origin(job.name),
            job_code_origin=JobPythonOrigin(job_name=job.name, repository_origin=repository),
        )
    )  # fmt: skip


def _await_status(setting: RequestSetting, run_id: str, wanted: DagsterRunStatus) -> str | None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        run = setting.served.get_run_by_id(run_id)
        if run is None:
            return "the run is gone"
        if run.status is wanted:
            return None
        if run.is_finished:
            messages = [each.message for each in setting.served.all_logs(run_id)]
            return f"the run has ended as {run.status.value}: {messages}"
        time.sleep(0.2)
    return f"the run has not become {wanted.value}"


REQUEST_CASES = [
    RequestCase(api="CHECK_FOR_WORKSPACE_UPDATES", check=_loaded),
    *_CALLS,
    RequestCase(api="GET_EXTERNAL_NOTEBOOK_DATA", check=_notebook),
    RequestCase(api="REFRESH_COMPONENT_STATE", check=_component_state),
    RequestCase(api="LAUNCH_RUN", check=_launch),
    RequestCase(api="TERMINATE_RUN", check=_terminate),
]


@contextlib.contextmanager
def open_requests(directory: Path, *, database_url: str | None = None) -> Iterator[RequestSetting]:
    """Run a control plane and the stock agent until the location is loaded, and a code server."""
    directory.mkdir(exist_ok=True)
    agent = directory / "agent"
    with (
        running_plane(directory / "home", database_url=database_url) as plane,
        running_stock_agent(
            agent, api=plane.api, ca=plane.ca, token=plane.agent_token,
            environment=BATCHED,
        ),
        code_server.running_code_server(
            MODULE, location=LOCATION, working_directory=agent
        ) as server,
        DagsterInstance.from_config(str(plane.home.root)) as served,
    ):  # fmt: skip
        code_server.deploy(plane, LOCATION, MODULE)
        setting = RequestSetting(
            plane=plane, served=served, notebook=agent / "notebook.ipynb",
            face=DagsterGrpcClient(socket=str(plane.home.socket(LOCATION))),
            direct=DagsterGrpcClient(socket=server.server_endpoint.socket),
        )  # fmt: skip
        _await_definitions(setting)
        yield setting


def _await_definitions(setting: RequestSetting) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    problem: object = None
    while time.monotonic() < deadline:
        try:
            problem = _loaded(setting)
        except Exception as error:  # noqa: BLE001 the face is not there yet; told below if it stays
            problem = error
        if problem is None:
            return
        time.sleep(0.2)
    raise TimeoutError(f"the stock agent has not loaded {MODULE}: {problem}")
