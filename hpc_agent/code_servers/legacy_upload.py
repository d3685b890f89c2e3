"""Legacy uploads: definitions inside the calls themselves.

``_update_workspace_entry_server_upload`` of the stock launcher, for control planes without
pre-signed addresses and for sites that reach nothing but the agent API.
"""

from __future__ import annotations

import json

from hpc_agent.code_servers.definitions import Definitions, repository_origin
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.dagster_plus.serdes import Packed, dumps, packed
from hpc_agent.errors import ControlPlaneError
from hpc_agent.grpc.client import CodeServerClient
from hpc_agent.inbound.json_text import loads


class LegacyUpload:
    """The scheme of the first Dagster Cloud."""

    def __init__(self, api: AgentApi) -> None:
        self._api = api

    async def pack(self, deployment: str, definitions: Definitions) -> Packed:
        """Return the message with everything that a location holds."""
        data = packed(
            "DagsterCloudUploadLocationData",
            upload_repository_datas=[
                packed(
                    "DagsterCloudUploadRepositoryData",
                    repository_name=repository.name,
                    code_pointer=repository.code_pointer,
                    serialized_repository_data=repository.snapshot,
                )
                for repository in definitions.repositories
            ],
            container_image=definitions.container_image,
            executable_path=definitions.executable_path,
            dagster_library_versions=definitions.library_versions,
        )
        return _entry(definitions.location, definitions.deploy_data, location_data=data)

    async def send(self, deployment: str, message: Packed) -> Packed:
        """Send the message; return the control plane's answer."""
        text = await self._api.put_compressed(
            "/upload_workspace_entry", "workspace_entry.tmp", dumps(message), deployment=deployment
        )
        try:
            answer = loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ControlPlaneError("/upload_workspace_entry: the answer cannot be read")
        return answer

    async def job(
        self, deployment: str, server: CodeServerClient, location: str, repository: str, name: str
    ) -> None:
        """Send the snapshot of one job, inside all that is known of the job."""
        data = await server.job(repository_origin(location, repository), name)
        await self._api.put_compressed(
            "/upload_job_snapshot", "job.tmp", data, deployment=deployment
        )

    async def error(
        self, deployment: str, location: str, deploy_data: Packed, serialized_error: str
    ) -> Packed:
        """Tell why a location does not load; return the control plane's answer."""
        entry = _entry(location, deploy_data, error=json.loads(serialized_error))
        return await self.send(deployment, entry)


def _entry(
    location: str,
    deploy_data: Packed,
    *,
    location_data: Packed | None = None,
    error: Packed | None = None,
) -> Packed:
    return packed(
        "DagsterCloudUploadWorkspaceEntry",
        location_name=location,
        deployment_metadata=deploy_data,
        upload_location_data=location_data,
        serialized_error_info=error,
    )
