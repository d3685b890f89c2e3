"""A real code server with the history's definitions, uploaded by the stock agent's own code."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagster._grpc.client import DagsterGrpcClient
from dagster_cloud.api.dagster_cloud_api import DagsterCloudUploadWorkspaceEntry
from dagster_cloud.instance import DagsterCloudAgentInstance
from dagster_cloud.workspace.user_code_launcher.user_code_launcher import (
    DagsterCloudGrpcServer,
    ServerEndpoint,
)
from dagster_cloud_cli.core.workspace import CodeLocationDeployData
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import serialize_value

from hpc_agent.conformance.plane import DEPLOYMENT, Plane
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.locations import Locations, NewLocation

MODULE = "hpc_agent.conformance.history"
START_SECONDS = 120.0


def deploy_data(module: str) -> CodeLocationDeployData:
    """Return what a deploy of a module says."""
    return CodeLocationDeployData(module_name=module)


@contextlib.contextmanager
def running_code_server(
    module: str = MODULE,
    *,
    location: str = "conformance",
    working_directory: Path | None = None,
) -> Iterator[DagsterCloudGrpcServer]:
    """Start ``dagster api grpc`` and end it; it gives away notebooks of its working directory."""
    with tempfile.TemporaryDirectory(prefix="hpc-") as directory:
        socket = str(Path(directory) / "grpc.sock")
        argv = [sys.executable, "-m", "dagster", "api", "grpc", "--socket", socket,
                "--module-name", module, "--location-name", location,
                "--log-level", "critical"]  # fmt: skip
        with subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=working_directory
        ) as process:
            try:
                _await_answer(DagsterGrpcClient(socket=socket), process, module)
                endpoint = ServerEndpoint(  # type: ignore[no-untyped-call]
                    host="localhost", port=None, socket=socket
                )
                yield DagsterCloudGrpcServer(None, endpoint, deploy_data(module))
            finally:
                process.terminate()


def deploy(plane: Plane, name: str, module: str = MODULE) -> None:
    """Add a location as ``control-plane deploy`` does."""
    data = serialize_value(deploy_data(module))
    new = NewLocation(name=name, agent_queue=None, deploy_data=data)
    with contextlib.closing(Database(plane.home.database_url)) as database:
        Locations(database).deploy(DEPLOYMENT, [new])


def upload(
    client: DagsterCloudAgentInstance, name: str, server: DagsterCloudGrpcServer, *, legacy: bool
) -> None:
    """Upload a location's definitions by the stock launcher's own code."""
    launcher: Any = client.user_code_launcher
    data = asyncio.run(launcher._get_upload_location_data(DEPLOYMENT, name, server))
    entry = DagsterCloudUploadWorkspaceEntry(
        location_name=name, code_location_deploy_data=deploy_data(MODULE),
        upload_location_data=data, serialized_error_info=None,
    )  # fmt: skip
    _send(launcher, entry, server, legacy=legacy)


def upload_error(
    client: DagsterCloudAgentInstance, name: str, error: SerializableErrorInfo, *, legacy: bool
) -> None:
    """Upload that a location does not load."""
    entry = DagsterCloudUploadWorkspaceEntry(
        location_name=name, code_location_deploy_data=deploy_data(MODULE),
        upload_location_data=None, serialized_error_info=error,
    )  # fmt: skip
    _send(client.user_code_launcher, entry, error, legacy=legacy)


def _send(
    launcher: Any,
    entry: DagsterCloudUploadWorkspaceEntry,
    server_or_error: DagsterCloudGrpcServer | SerializableErrorInfo,
    *,
    legacy: bool,
) -> None:
    kind = "server" if legacy else "direct"
    getattr(launcher, f"_update_workspace_entry_{kind}_upload")(DEPLOYMENT, entry, server_or_error)


def _await_answer(client: DagsterGrpcClient, process: subprocess.Popen[bytes], module: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.ping("")
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dagster api grpc over {module} does not start") from error
            time.sleep(0.1)
        else:
            return
