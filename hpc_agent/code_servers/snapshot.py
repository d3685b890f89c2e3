"""Tells the control plane what a code location holds, or why it does not load.

The scheme is the one with direct uploads (``_update_workspace_entry_direct_upload`` of the stock
launcher): every snapshot is stored under its SHA-1, only what is missing is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.dagster_plus.serdes import Packed, dumps, is_error, packed
from hpc_agent.errors import CodeLocationLoadError, ControlPlaneError
from hpc_agent.grpc.client import CodeServerClient

_JSON = "json"
_COMPRESSED_JSON = "json.gz"  # zlib in truth, as the stock client does it
_JOB_UPLOADS_AT_ONCE = 4


async def upload_location(
    api: AgentApi,
    server: CodeServerClient,
    *,
    deployment: str,
    location: str,
    deploy_data: str,
) -> str:
    """Send the definitions of a code location; return what the control plane says of it.

    Raises CodeLocationLoadError when the code does not load (``upload_error`` tells that),
    CodeServerError and ControlPlaneError.
    """
    listing = await server.list_repositories()
    if is_error(listing):
        message = str(json.loads(listing).get("message") or "the code does not load")
        raise CodeLocationLoadError(message, listing)
    repositories = json.loads(listing)
    pointers: Mapping[str, Packed] = repositories["repository_code_pointer_dict"]
    manifests = [
        packed(
            "DagsterCloudRepositoryManifest",
            name=name,
            code_pointer=pointer,
            stored_snapshot=await _store(
                api,
                deployment,
                "repository",
                await server.repository(repository_origin(location, name)),
            ),
        )
        for name, pointer in pointers.items()
    ]
    manifest = packed(
        "DagsterCloudCodeLocationManifest",
        repositories=manifests,
        container_image=repositories.get("container_image"),
        executable_path=repositories.get("executable_path"),
        dagster_library_versions=repositories.get("dagster_library_versions"),
        code_location_deploy_data=json.loads(deploy_data),
    )
    answer = await _put_result(api, deployment, location, manifest=manifest)
    if not answer.get("updated"):
        await _upload_jobs(api, server, deployment, location, answer["missing_job_snapshots"] or [])
        answer = await _put_result(api, deployment, location, manifest=manifest)
    if not answer.get("updated"):
        raise ControlPlaneError(
            f"{deployment}/{location}: the control plane did not take the definitions: "
            f"{answer.get('message')}"
        )
    return str(answer.get("message") or "")


async def upload_error(
    api: AgentApi, *, deployment: str, location: str, serialized_error: str
) -> None:
    """Tell the control plane why a code location does not load."""
    stored = await _store(api, deployment, "error", serialized_error)
    await _put_result(api, deployment, location, error_snapshot=stored)


def repository_origin(location: str, repository: str) -> str:
    """Return a serialized RemoteRepositoryOrigin."""
    return dumps(
        packed(
            "ExternalRepositoryOrigin",
            repository_location_origin=packed(
                "RegisteredRepositoryLocationOrigin", location_name=location
            ),
            repository_name=repository,
        )
    )


def job_snapshot(serialized_job_data: str) -> str:
    """Return the job snapshot inside a JobDataSnap, character by character as Dagster wrote it.

    Its SHA-1 is the snapshot's id, so the text must not change: Python's own JSON separators and
    the order of keys are what ``serialize_value`` uses.
    """
    return json.dumps(json.loads(serialized_job_data)["pipeline_snapshot"])


async def _upload_jobs(
    api: AgentApi,
    server: CodeServerClient,
    deployment: str,
    location: str,
    selectors: Sequence[Mapping[str, Any]],
) -> None:
    slots = asyncio.Semaphore(_JOB_UPLOADS_AT_ONCE)

    async def upload(selector: Mapping[str, Any]) -> None:
        async with slots:
            origin = repository_origin(location, selector["repository_name"])
            data = await server.job(origin, selector["job_name"])
            await _store(api, deployment, "job", job_snapshot(data))

    async with asyncio.TaskGroup() as tasks:
        for selector in selectors:
            tasks.create_task(upload(selector))


async def _put_result(
    api: AgentApi,
    deployment: str,
    location: str,
    *,
    manifest: Packed | None = None,
    error_snapshot: Packed | None = None,
) -> Packed:
    result = packed(
        "DagsterCloudCodeLocationUpdateResult",
        location_name=location,
        manifest=manifest,
        error_snapshot=error_snapshot,
    )
    return await api.put_json("/code_location_update_result", result, deployment=deployment)


async def _store(api: AgentApi, deployment: str, kind: str, serialized: str) -> Packed:
    """Store a snapshot unless it is there already; return its StoredSnapshot."""
    content = serialized.encode()
    checked = await api.get(
        "/check_snapshot",
        deployment=deployment,
        parameters={
            "type": kind,
            "sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
            "size": len(content),
            "formats": [_COMPRESSED_JSON, _JSON],
        },
    )
    if checked.get("stored_snapshot"):
        return _object(checked["stored_snapshot"])
    upload = _object(checked.get("upload_data"))
    compressed = upload["format"] == _COMPRESSED_JSON
    body = await asyncio.to_thread(zlib.compress, content) if compressed else content
    await api.put_presigned(upload["presigned_put_url"], body)
    confirmed = await api.put_json("/confirm_upload", upload, deployment=deployment)
    return _object(confirmed.get("stored_snapshot"))


def _object(value: object) -> Packed:
    if not isinstance(value, dict):
        raise ControlPlaneError("the control plane's answer about a snapshot cannot be read")
    return value
