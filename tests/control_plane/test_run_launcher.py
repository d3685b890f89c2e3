"""Runs of the gateway's locations are launched without a second instance for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import dagster as dg
import pytest
import pytest_asyncio
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError
from dagster._core.launcher import LaunchRunContext
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_cloud.api.dagster_cloud_api import (
    DagsterCloudApiErrorResponse,
    DagsterCloudApiSuccess,
)
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import serialize_value

from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.instance import open_instance
from tests.control_plane import counted_storage
from tests.control_plane.conftest import AgentApi
from tests.control_plane.definitions import deploy, new_run, upload_location
from tests.control_plane.test_faces import take_request

COUNTED = """
storage:
  custom:
    module: tests.control_plane.counted_storage
    class: CountedStorage
    config: {{base_dir: {home}}}
"""


@pytest.fixture
def home(home: Home) -> Home:
    """A fresh home that tells how often its storage was opened."""
    with home.dagster_yaml.open("a") as file:
        file.write(COUNTED.format(home=home.root))
    return home


class Webserver:
    """What webserver and daemon have: an instance of their own, and the workspace."""

    def __init__(self, home: Home) -> None:
        self._instance = open_instance(home)
        target = WorkspaceFileTarget([str(home.workspace_yaml)])
        self._workspace = WorkspaceProcessContext(self._instance, target)
        counted_storage.opened.clear()

    def launch(self, run_id: str) -> None:
        """Launch a run."""
        run = self._instance.get_run_by_id(run_id)
        assert run is not None
        context = LaunchRunContext(run, workspace=self._workspace.create_request_context())
        self._instance.run_launcher.launch_run(context)

    def close(self) -> None:
        """Close both."""
        self._workspace.__exit__(None, None, None)
        self._instance.dispose()


@pytest_asyncio.fixture
async def webserver(gateway: Gateway, api: AgentApi, home: Home) -> AsyncIterator[Webserver]:
    """One that has loaded an uploaded location."""
    await asyncio.to_thread(deploy, gateway.services.locations)
    await upload_location(api.client)
    await gateway.refresh()
    opened = await asyncio.to_thread(Webserver, home)
    yield opened
    await asyncio.to_thread(opened.close)


@pytest.fixture
def run(gateway: Gateway) -> dg.DagsterRun:
    """A run of the uploaded location that is about to be launched."""
    return new_run(gateway.services.instance, dg.DagsterRunStatus.STARTING)


async def test_launch_opens_no_further_instance(
    gateway: Gateway, webserver: Webserver, run: dg.DagsterRun
) -> None:
    """What the stock client does around each StartRun costs more than all the rest of a launch."""
    launching = asyncio.create_task(asyncio.to_thread(webserver.launch, run.run_id))
    request = await take_request(gateway)
    response = serialize_value(DagsterCloudApiSuccess())
    await gateway.services.queue.answer(request.request_id, response)
    await launching

    assert counted_storage.opened == []
    launched = gateway.services.instance.get_run_by_id(run.run_id)
    assert launched is not None
    assert "socket" in launched.tags[GRPC_INFO_TAG]  # by which it is canceled


async def test_refused_launch_is_an_error_with_the_agents_words(
    gateway: Gateway, webserver: Webserver, run: dg.DagsterRun
) -> None:
    """Webserver and daemon fail such a run, and show why."""
    launching = asyncio.create_task(asyncio.to_thread(webserver.launch, run.run_id))
    request = await take_request(gateway)
    error = SerializableErrorInfo("partition gpu may not be used", [], "PolicyError")
    response = serialize_value(DagsterCloudApiErrorResponse(error_infos=[error]))
    await gateway.services.queue.answer(request.request_id, response)

    with pytest.raises(DagsterLaunchFailedError, match="partition gpu may not be used"):
        await launching


async def test_absent_gateway_is_code_that_cannot_be_reached(
    gateway: Gateway, webserver: Webserver, run: dg.DagsterRun
) -> None:
    """The daemon puts runs back into its queue for this error alone."""
    await gateway.close()

    with pytest.raises(DagsterUserCodeUnreachableError):
        await asyncio.to_thread(webserver.launch, run.run_id)
