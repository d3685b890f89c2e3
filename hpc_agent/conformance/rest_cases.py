"""Calls outside the storages: uploads, answers, logs, heartbeats, maintenance."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import AssetMaterialization, DagsterInstance
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION
from dagster_cloud.agent.dagster_cloud_agent import DEPLOYMENT_INFO_QUERY as DEPLOYMENT_NAME_QUERY
from dagster_cloud.agent.dagster_cloud_agent import upload_api_response
from dagster_cloud.agent.queries import (
    ADD_AGENT_HEARTBEATS_MUTATION,
    DEPLOYMENTS_QUERY,
    GET_AGENTS_QUERY,
    GET_USER_CLOUD_REQUESTS_QUERY,
    WORKSPACE_ENTRIES_QUERY,
)
from dagster_cloud.api.dagster_cloud_api import (
    AgentHeartbeat,
    BatchDagsterCloudUploadApiResponse,
    DagsterCloudApiSuccess,
    DagsterCloudUploadApiResponse,
)
from dagster_cloud.instance import DagsterCloudAgentInstance
from dagster_cloud.secrets.loader import SECRETS_QUERY
from dagster_cloud.storage.compute_logs import CloudComputeLogManager
from dagster_cloud.util import compressed_namedtuple_upload_file
from dagster_cloud.workspace.user_code_launcher.user_code_launcher import (
    DEPLOYMENT_INFO_QUERY,
    INIT_UPLOAD_LOCATIONS_QUERY,
    DagsterCloudGrpcServer,
)
from dagster_cloud_cli.core.errors import DagsterCloudHTTPError, DagsterCloudMaintenanceException
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import serialize_value

from hpc_agent.conformance import code_server
from hpc_agent.conformance.history import ORDERS, PARTITIONS, orders
from hpc_agent.conformance.plane import DEPLOYMENT, Plane
from hpc_agent.control_plane.http.limits import MAX_GRAPHQL_BYTES
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.maintenance import MaintenanceSwitch

PATIENCE_SECONDS = 30.0
LOG_KEY = ["conformance-run", "compute_logs", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestSetting:
    """A plane, the stock client of it, a code server, and the instance that the plane serves."""

    plane: Plane
    client: DagsterCloudAgentInstance
    server: DagsterCloudGrpcServer
    served: DagsterInstance

    def execute(self, document: str, **variables: Any) -> Any:
        return self.client.graphql_client.execute(document, variable_values=variables)["data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestCase:
    """A call and what must have come of it; ``check`` returns what is wrong, or None."""

    name: str
    check: Callable[[RestSetting], str | None]

    def __str__(self) -> str:
        return self.name


def _expect(expected: object, actual: object) -> str | None:
    return None if expected == actual else f"expected {expected!r}, got {actual!r}"


# -- definitions


def _location(setting: RestSetting, name: str) -> dict[str, Any]:
    data = setting.execute(
        WORKSPACE_ENTRIES_QUERY, deploymentNames=[DEPLOYMENT],
        includeAllServerlessDeployments=False, agentQueues=[None],
    )  # fmt: skip
    entries = data["deployments"][0]["workspaceEntries"]
    found: dict[str, Any] = next(each for each in entries if each["locationName"] == name)
    return found


def _upload(setting: RestSetting, name: str, *, legacy: bool) -> str | None:
    code_server.deploy(setting.plane, name)
    if not _location(setting, name)["hasOutdatedData"]:
        return "a location that was just deployed is not outdated"
    code_server.upload(setting.client, name, setting.server, legacy=legacy)
    entry = _location(setting, name)
    return _expect((False, False), (entry["hasOutdatedData"], entry["hasLoadError"]))


def _upload_error(setting: RestSetting, name: str, *, legacy: bool) -> str | None:
    code_server.deploy(setting.plane, name)
    error = SerializableErrorInfo("does not load", ["stack\n"], "ImportError")
    code_server.upload_error(setting.client, name, error, legacy=legacy)
    entry = _location(setting, name)
    return _expect((False, True), (entry["hasOutdatedData"], entry["hasLoadError"]))


def _status_cache(setting: RestSetting) -> str | None:
    """Partitions that were materialized since are in the values: they are no stale ones."""
    events: Any = setting.client.event_log_storage
    setting.client.report_runless_asset_event(AssetMaterialization(ORDERS, partition="b"))
    values = events.get_asset_status_cache_values([(ORDERS, None)], None)
    if values[0] is None:
        return "no value for a partitioned asset"
    if orders.partitions_def is None:
        return "the asset has no partitions"
    subset = values[0].deserialize_materialized_partition_subsets(orders.partitions_def)
    return None if "b" in set(subset.get_partition_keys()) else f"b is not in {subset}"


def _materialization_counts(setting: RestSetting) -> str | None:
    events: Any = setting.client.event_log_storage
    counts = events.get_materialization_count_by_partition([ORDERS])[ORDERS]
    return None if counts.get("b", 0) >= 1 and set(counts) <= set(PARTITIONS) else repr(counts)


# -- work


def _pop(setting: RestSetting) -> list[dict[str, Any]]:
    data = setting.execute(
        GET_USER_CLOUD_REQUESTS_QUERY, forFullDeployments=[DEPLOYMENT], agentQueues=[None]
    )
    found: list[dict[str, Any]] = data["userCloudAgent"]["popUserCloudAgentRequests"]
    return found


def _answer(setting: RestSetting) -> str | None:
    """A deploy asks for a look at the workspace; the answer settles it."""
    code_server.deploy(setting.plane, "answered")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (popped := _pop(setting)):
        if time.monotonic() > deadline:
            return "a deploy made no request"
        time.sleep(0.1)
    for request in popped:
        response = DagsterCloudUploadApiResponse(
            request_id=request["requestId"], request_api=request["requestApi"],
            response=DagsterCloudApiSuccess(),
        )  # fmt: skip
        upload_api_response(setting.client, DEPLOYMENT, response)
        upload_api_response(setting.client, DEPLOYMENT, response)  # repeated: changes nothing
    return None


def _answer_batch(setting: RestSetting) -> str | None:
    answers = [
        DagsterCloudUploadApiResponse(
            request_id=f"unknown-{number}", request_api="PING_LOCATION",
            response=DagsterCloudApiSuccess(),
        )
        for number in range(3)
    ]  # fmt: skip
    with compressed_namedtuple_upload_file(BatchDagsterCloudUploadApiResponse(batch=answers)) as f:
        response = setting.client.requests_managed_retries_session.put(
            setting.client.dagster_cloud_upload_api_response_url,
            headers=setting.client.headers_for_deployment(DEPLOYMENT),
            files={"api_response.tmp": f},
        )
    return _expect(200, response and response.status_code)


def _heartbeat(message: str) -> dict[str, str]:
    beat = AgentHeartbeat(
        timestamp=time.time(), agent_id="conformance", agent_label=message, agent_type="Conformance"
    )
    return {"deploymentName": DEPLOYMENT, "serializedAgentHeartbeat": serialize_value(beat)}


def _beat(setting: RestSetting, message: str) -> None:
    client: Any = setting.client
    client.organization_scoped_graphql_client().execute(
        ADD_AGENT_HEARTBEATS_MUTATION,
        variable_values={"serializedAgentHeartbeats": [_heartbeat(message)],
                         "serializedErrors": []},
        idempotent_mutation=True,
    )  # fmt: skip


def _heartbeats(setting: RestSetting) -> str | None:
    _beat(setting, "here")
    agents = setting.execute(GET_AGENTS_QUERY, heartbeatedSince=0.0)["agents"]
    return _expect([{"id": "conformance", "status": "RUNNING"}], agents)


def _heartbeat_too_large(setting: RestSetting) -> str | None:
    """413 makes DagsterCloudAgent send a smaller one."""
    try:
        _beat(setting, "x" * MAX_GRAPHQL_BYTES)
    except DagsterCloudHTTPError as error:
        return _expect(413, error.response is not None and error.response.status_code)
    return "it was taken"


def _small_questions(setting: RestSetting) -> str | None:
    deployments = setting.execute(DEPLOYMENTS_QUERY, deploymentNames=[DEPLOYMENT])["deployments"]
    kind = setting.execute(DEPLOYMENT_INFO_QUERY)["deploymentInfo"]["deploymentType"]
    name = setting.execute(DEPLOYMENT_NAME_QUERY)["deploymentInfo"]["deploymentName"]
    setting.execute(INIT_UPLOAD_LOCATIONS_QUERY)
    secrets = setting.execute(SECRETS_QUERY, locationName="here")["scopedSecrets"]
    answer = [deployments, kind, name, secrets]
    return _expect([[{"deploymentName": DEPLOYMENT}], "PRODUCTION", DEPLOYMENT, []], answer)


# -- compute logs


def _compute_logs(setting: RestSetting) -> str | None:
    """Partial uploads can be read at once, the last ones complete the log."""
    manager = CloudComputeLogManager(  # type: ignore[no-untyped-call]
        local_dir=str(setting.plane.home.root / "client-logs")
    )
    manager.register_instance(setting.client)
    served = setting.served.compute_log_manager
    _upload_log(manager, ComputeIOType.STDOUT, "one\n", partial=True)
    if (problem := _expect(b"one\n", served.get_log_data(LOG_KEY).stdout)) is not None:
        return problem
    if served.is_capture_complete(LOG_KEY):
        return "a partial upload has completed the log"
    _upload_log(manager, ComputeIOType.STDOUT, "one\ntwo\n", partial=False)
    _upload_log(manager, ComputeIOType.STDERR, "err\n", partial=False)
    data = served.get_log_data(LOG_KEY)
    outcome = (data.stdout, data.stderr, served.is_capture_complete(LOG_KEY))
    return _expect((b"one\ntwo\n", b"err\n", True), outcome)


def _upload_log(
    manager: CloudComputeLogManager, io: ComputeIOType, text: str, *, partial: bool
) -> None:
    path = manager.local_manager.get_captured_local_path(LOG_KEY, IO_TYPE_EXTENSION[io])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    manager.upload_to_cloud_storage(LOG_KEY, io, partial=partial)


# -- maintenance


@contextlib.contextmanager
def _switch(plane: Plane) -> Iterator[MaintenanceSwitch]:
    with contextlib.closing(Database(plane.home.database_url)) as database:
        switch = MaintenanceSwitch(database)
        try:
            yield switch
        finally:
            switch.turn_off()


def _told_of_maintenance(setting: RestSetting) -> bool:
    try:
        setting.client.graphql_client._execute_retry("{ __typename }", None, None)
    except DagsterCloudMaintenanceException as error:
        return str(error) == "moving disks" and error.timeout > 60
    return False


def _maintenance(setting: RestSetting) -> str | None:
    """The client waits while it lasts, and its call goes through afterwards."""
    with _switch(setting.plane) as switch:
        switch.turn_on("moving disks", minutes=5)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _told_of_maintenance(setting):
            if time.monotonic() > deadline:
                return "the client was not told of maintenance"
            time.sleep(0.1)
        off = threading.Timer(0.5, switch.turn_off)
        off.start()
        try:
            name = setting.execute(DEPLOYMENTS_QUERY, deploymentNames=[DEPLOYMENT])
        finally:
            off.join()
    return _expect({"deployments": [{"deploymentName": DEPLOYMENT}]}, name)


REST_CASES = [
    RestCase(name="definitions by snapshot", check=lambda s: _upload(s, "direct", legacy=False)),
    RestCase(name="definitions inside a message", check=lambda s: _upload(s, "old", legacy=True)),
    RestCase(name="load error by snapshot",
             check=lambda s: _upload_error(s, "broken", legacy=False)),
    RestCase(name="load error inside a message",
             check=lambda s: _upload_error(s, "old-broken", legacy=True)),
    RestCase(name="asset status cache", check=_status_cache),
    RestCase(name="materialization counts", check=_materialization_counts),
    RestCase(name="request and answer", check=_answer),
    RestCase(name="a batch of answers", check=_answer_batch),
    RestCase(name="heartbeats", check=_heartbeats),
    RestCase(name="a heartbeat that is too large", check=_heartbeat_too_large),
    RestCase(name="what agents ask at their start", check=_small_questions),
    RestCase(name="compute logs, partial and complete", check=_compute_logs),
    RestCase(name="maintenance", check=_maintenance),
]  # fmt: skip


@contextlib.contextmanager
def open_rest(plane: Plane, client: DagsterCloudAgentInstance) -> Iterator[RestSetting]:
    """Start the code server, and open the instance that the plane serves."""
    with (
        code_server.running_code_server() as server,
        DagsterInstance.from_config(str(plane.home.root)) as served,
    ):
        yield RestSetting(plane=plane, client=client, server=server, served=served)
