"""Definitions get to the control plane by either scheme, also by one it turns out to know."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dagster_cloud.api.dagster_cloud_api import (
        DagsterCloudCodeLocationUpdateResult,
        DagsterCloudUploadWorkspaceEntry,
    )
    from dagster_shared.serdes import deserialize_value

from hpc_agent.errors import (
    CodeLocationLoadError,
    CodeServerError,
    ControlPlaneError,
    ControlPlaneUnavailableError,
)
from tests.code_servers.peers import (
    JOB,
    REPOSITORY,
    SERVER,
    Plane,
    UserCode,
    code_server,
    sha1,
    uploads_to,
)

pytestmark = pytest.mark.filterwarnings("ignore")


async def test_direct_upload_sends_what_is_missing(tmp_path: Path) -> None:
    """Repository first, then the jobs that the control plane asks for, each under its SHA-1."""
    plane = Plane()
    async with uploads_to(plane) as (uploads, _), code_server(tmp_path, UserCode()) as client:
        assert await uploads.definitions(SERVER, client) == "is up to date"
    assert set(plane.stored) == {sha1(REPOSITORY), sha1('{"name": "j"}')}
    result = deserialize_value(plane.results[-1], DagsterCloudCodeLocationUpdateResult)
    assert result.manifest is not None
    assert result.manifest.repositories[0].stored_snapshot.sha1 == sha1(REPOSITORY)
    assert result.manifest.executable_path == "/py"


async def test_what_is_stored_is_not_sent_again(tmp_path: Path) -> None:
    """A second upload is a few small calls."""
    plane = Plane()
    async with uploads_to(plane) as (uploads, gateway), code_server(tmp_path, UserCode()) as client:
        await uploads.definitions(SERVER, client)
        before = len(gateway.received)
        await uploads.definitions(SERVER, client)
        paths = gateway.paths()[before:]
    assert paths == ["/check_snapshot", "/code_location_update_result"]


async def test_legacy_upload_sends_it_inside_the_call(tmp_path: Path) -> None:
    """Read back with the stock types."""
    plane = Plane()
    async with (
        uploads_to(plane, "legacy") as (uploads, gateway),
        code_server(tmp_path, UserCode()) as client,
    ):
        assert await uploads.definitions(SERVER, client) == "is up to date"
        assert "/check_snapshot" not in gateway.paths()
    assert plane.jobs == [JOB]
    entry = deserialize_value(plane.entries[-1], DagsterCloudUploadWorkspaceEntry)
    assert entry.code_location_deploy_data.module_name == "m"
    assert entry.upload_location_data is not None
    (repository,) = entry.upload_location_data.upload_repository_datas
    assert repository.serialized_repository_data == REPOSITORY


async def test_control_plane_without_direct_uploads_gets_legacy_ones(tmp_path: Path) -> None:
    """Found out once, and remembered."""
    plane = Plane(knows_direct=False)
    async with uploads_to(plane) as (uploads, gateway), code_server(tmp_path, UserCode()) as client:
        await uploads.definitions(SERVER, client)
        await uploads.definitions(SERVER, client)
        assert gateway.paths().count("/check_snapshot") == 1
    assert len(plane.entries) == 3  # one refused for the job that was missing


@pytest.mark.parametrize("scheme", ["direct", "legacy"])
async def test_load_error_is_told(scheme: str, tmp_path: Path) -> None:
    """With the traceback of user code, unchanged."""
    error = '{"__class__": "SerializableErrorInfo", "message": "no", "stack": ["x"], "cls_name": "E", "cause": null, "context": null}'  # noqa: E501
    plane = Plane()
    async with (
        uploads_to(plane, scheme) as (uploads, _),
        code_server(tmp_path, UserCode(listing=error)) as client,
    ):
        with pytest.raises(CodeLocationLoadError) as caught:
            await uploads.definitions(SERVER, client)
        await uploads.error(SERVER, caught.value.serialized_error)
    if scheme == "direct":
        assert plane.stored == {sha1(error): error}
        result = deserialize_value(plane.results[-1], DagsterCloudCodeLocationUpdateResult)
        assert result.error_snapshot is not None
        assert result.error_snapshot.sha1 == sha1(error)
    else:
        entry = deserialize_value(plane.entries[-1], DagsterCloudUploadWorkspaceEntry)
        assert entry.serialized_error_info is not None
        assert entry.serialized_error_info.stack == ["x"]


async def test_absent_control_plane_is_no_reason_for_the_other_scheme(tmp_path: Path) -> None:
    """Retryable, and the scheme stays."""
    plane = Plane()
    async with uploads_to(plane) as (uploads, _), code_server(tmp_path, UserCode()) as client:
        plane.broken = 503
        with pytest.raises(ControlPlaneUnavailableError):
            await uploads.definitions(SERVER, client)
        plane.broken = 200
        await uploads.definitions(SERVER, client)
    assert plane.entries == []


async def test_definitions_that_are_never_taken_are_an_error(tmp_path: Path) -> None:
    """Once the jobs are there and the control plane still is not content."""
    plane = Plane()
    plane.is_never_content = True
    async with uploads_to(plane) as (uploads, _), code_server(tmp_path, UserCode()) as client:
        with pytest.raises(ControlPlaneError, match="did not take the definitions: never"):
            await uploads.definitions(SERVER, client)


async def test_job_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    """Not a group of exceptions: whoever retries must see what it was."""
    plane = Plane()
    async with (
        uploads_to(plane) as (uploads, _),
        code_server(tmp_path, UserCode(job="")) as client,
    ):
        with pytest.raises(CodeServerError, match="job j: no such job"):
            await uploads.definitions(SERVER, client)
