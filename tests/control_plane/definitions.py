"""Definitions uploaded to a gateway as an agent uploads them, without starting a code server."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import dagster as dg
import httpx
from dagster import DagsterInstance, DagsterRun
from dagster._core.code_pointer import FileCodePointer
from dagster._core.definitions.repository_definition import RepositoryDefinition
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._core.snap import JobSnap
from dagster_cloud.api.dagster_cloud_api import (
    CheckSnapshotResult,
    ConfirmUploadResult,
    DagsterCloudCodeLocationManifest,
    DagsterCloudCodeLocationUpdateResponse,
    DagsterCloudCodeLocationUpdateResult,
    DagsterCloudRepositoryManifest,
    StoredSnapshot,
)
from dagster_cloud_cli.core.workspace import CodeLocationDeployData
from dagster_shared.serdes import pack_value, serialize_value
from dagster_shared.serdes.serdes import unpack_value

from hpc_agent.control_plane.store.locations import Locations, NewLocation

DEPLOY_DATA = CodeLocationDeployData(python_file="pipelines.py")


@dg.op
def do() -> None: ...


@dg.job
def work() -> None:
    do()


def repository() -> RepositoryDefinition:
    return dg.Definitions(jobs=[work]).get_repository_def()


def deploy(locations: Locations, name: str = "here", queue: str | None = None) -> None:
    new = NewLocation(name=name, agent_queue=queue, deploy_data=serialize_value(DEPLOY_DATA))
    locations.deploy("prod", [new])


async def upload(client: httpx.AsyncClient, kind: str, content: str) -> StoredSnapshot:
    """Upload a snapshot by the agent's protocol: check, put, confirm."""
    sha1 = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
    query: dict[str, Any] = {
        "type": kind,
        "sha1": sha1,
        "size": len(content),
        "formats": ["json.gz", "json"],
    }
    checked = await client.get("/check_snapshot", params=query)
    checked.raise_for_status()
    found = unpack_value(checked.json(), CheckSnapshotResult)
    if found.stored_snapshot:
        return found.stored_snapshot
    assert found.upload_data is not None
    url = found.upload_data.presigned_put_url
    put = await client.put(url, content=zlib.compress(content.encode()), headers={})
    put.raise_for_status()
    confirmed = await client.put("/confirm_upload", json=pack_value(found.upload_data))
    confirmed.raise_for_status()
    return unpack_value(confirmed.json(), ConfirmUploadResult).stored_snapshot


async def update(
    client: httpx.AsyncClient, result: DagsterCloudCodeLocationUpdateResult
) -> DagsterCloudCodeLocationUpdateResponse:
    answer = await client.put("/code_location_update_result", json=pack_value(result))
    answer.raise_for_status()
    return unpack_value(answer.json(), DagsterCloudCodeLocationUpdateResponse)


async def upload_location(
    client: httpx.AsyncClient, name: str = "here"
) -> Sequence[DagsterCloudCodeLocationUpdateResponse]:
    """Upload a location with its jobs. Returns both answers: with jobs missing, and without."""
    definition = repository()
    snap = RepositorySnap.from_def(definition, defer_snapshots=True)
    manifest = DagsterCloudCodeLocationManifest(
        repositories=[
            DagsterCloudRepositoryManifest(
                name=definition.name,
                code_pointer=FileCodePointer("pipelines.py", "defs"),
                stored_snapshot=await upload(client, "repository", serialize_value(snap)),
            )
        ],
        container_image="image:1",
        executable_path="/venv/bin/python",
        dagster_library_versions={"dagster": "1.0"},
        code_location_deploy_data=DEPLOY_DATA,
    )
    result = DagsterCloudCodeLocationUpdateResult(
        location_name=name, manifest=manifest, error_snapshot=None
    )
    first = await update(client, result)
    for selector in first.missing_job_snapshots or ():
        job = definition.get_job(selector.job_name).get_job_snapshot()
        await upload(client, "job", serialize_value(job))
    return first, await update(client, result)


def repository_origin() -> RemoteRepositoryOrigin:
    return RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), repository().name)


def new_run(instance: DagsterInstance, status: dg.DagsterRunStatus) -> DagsterRun:
    """Put a run of ``work`` into the instance."""
    snap: JobSnap = work.get_job_snapshot()
    run = DagsterRun(
        job_name="work", status=status, job_snapshot_id=instance.run_storage.add_job_snapshot(snap),
        remote_job_origin=repository_origin().get_job_origin("work"),
    )  # fmt: skip
    return instance.add_run(run)
