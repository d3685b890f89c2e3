"""Direct uploads: snapshots go to the control plane's storage by pre-signed address.

``_update_workspace_entry_direct_upload`` of the stock launcher: every snapshot is stored under its
SHA-1, and only what is missing is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib

from hpc_agent.code_servers.definitions import Definitions, job_snapshot, repository_origin
from hpc_agent.dagster_plus.client import AgentApi, ControlPlaneStatusError
from hpc_agent.dagster_plus.serdes import Packed, packed
from hpc_agent.errors import ControlPlaneError, ControlPlaneRefusedError
from hpc_agent.grpc.client import CodeServerClient

_JSON = "json"
_COMPRESSED_JSON = "json.gz"  # zlib in truth, as the stock client does it
_NOT_FOUND = 404


class NoDirectUploadsError(ControlPlaneRefusedError):
    """The control plane has never heard of direct uploads."""


class DirectUpload:
    """The scheme of today's Dagster+."""

    def __init__(self, api: AgentApi) -> None:
        self._api = api

    async def pack(self, deployment: str, definitions: Definitions) -> Packed:
        """Store the repositories of a location; return the message that refers to them."""
        manifest = packed(
            "DagsterCloudCodeLocationManifest",
            repositories=[
                packed(
                    "DagsterCloudRepositoryManifest",
                    name=repository.name,
                    code_pointer=repository.code_pointer,
                    stored_snapshot=await self._store(
                        deployment, "repository", repository.snapshot
                    ),
                )
                for repository in definitions.repositories
            ],
            container_image=definitions.container_image,
            executable_path=definitions.executable_path,
            dagster_library_versions=definitions.library_versions,
            code_location_deploy_data=definitions.deploy_data,
        )
        return _result(definitions.location, manifest=manifest)

    async def send(self, deployment: str, message: Packed) -> Packed:
        """Send the message; return the control plane's answer."""
        return await self._api.put_json(
            "/code_location_update_result", message, deployment=deployment
        )

    async def job(
        self, deployment: str, server: CodeServerClient, location: str, repository: str, name: str
    ) -> None:
        """Send the snapshot of one job."""
        data = await server.job(repository_origin(location, repository), name)
        await self._store(deployment, "job", job_snapshot(data))

    async def error(
        self, deployment: str, location: str, deploy_data: Packed, serialized_error: str
    ) -> Packed:
        """Tell why a location does not load; return the control plane's answer."""
        stored = await self._store(deployment, "error", serialized_error)
        return await self.send(deployment, _result(location, error_snapshot=stored))

    async def _store(self, deployment: str, kind: str, serialized: str) -> Packed:
        """Store a snapshot unless it is there already; return its StoredSnapshot."""
        content = serialized.encode()
        checked = await self._check(deployment, kind, content)
        if checked.get("stored_snapshot"):
            return _object(checked["stored_snapshot"])
        upload = _object(checked.get("upload_data"))
        if not {"format", "presigned_put_url"} <= upload.keys():
            raise ControlPlaneError("the control plane does not say where a snapshot is stored")
        compressed = upload["format"] == _COMPRESSED_JSON
        body = await asyncio.to_thread(zlib.compress, content) if compressed else content
        await self._api.put_presigned(upload["presigned_put_url"], body)
        confirmed = await self._api.put_json("/confirm_upload", upload, deployment=deployment)
        return _object(confirmed.get("stored_snapshot"))

    async def _check(self, deployment: str, kind: str, content: bytes) -> Packed:
        parameters = {
            "type": kind,
            "sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
            "size": len(content),
            "formats": [_COMPRESSED_JSON, _JSON],
        }
        try:
            return await self._api.get(
                "/check_snapshot", deployment=deployment, parameters=parameters
            )
        except ControlPlaneStatusError as error:
            if error.status == _NOT_FOUND:
                raise NoDirectUploadsError(str(error)) from None
            raise


def _result(
    location: str, *, manifest: Packed | None = None, error_snapshot: Packed | None = None
) -> Packed:
    return packed(
        "DagsterCloudCodeLocationUpdateResult",
        location_name=location,
        manifest=manifest,
        error_snapshot=error_snapshot,
    )


def _object(value: object) -> Packed:
    if not isinstance(value, dict):
        raise ControlPlaneError("the control plane's answer about a snapshot cannot be read")
    return value
