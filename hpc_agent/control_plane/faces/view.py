"""What a face shows of its location: the agent's last upload, or why there is none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dagster._core.errors import DagsterUserCodeProcessError
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, get_python_environment_entry_point
from dagster._grpc.types import ListRepositoriesResponse, LoadableRepositorySymbol
from dagster_cloud.api.dagster_cloud_api import DagsterCloudCodeLocationManifest
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import deserialize_value

from hpc_agent.control_plane.agents_seen import AgentsSeen
from hpc_agent.control_plane.faces.standing import update_text, waiting_text
from hpc_agent.control_plane.store.agents import CodeServer
from hpc_agent.control_plane.store.locations import Location


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationView:
    """An immutable picture of a location; a change makes a new one with a new ``server_id``.

    ``name`` is what agents know the location by, ``face_name`` what webserver and daemon do.
    ``update`` says how a newer version stands that is on its way.
    """

    deployment: str
    is_branch: bool
    name: str
    face_name: str
    agent_queue: str | None
    server_id: str
    manifest: DagsterCloudCodeLocationManifest | None
    error: SerializableErrorInfo | None
    update: str | None

    def repositories(self) -> ListRepositoriesResponse | SerializableErrorInfo:
        """Answer ListRepositories: the uploaded repositories, or what keeps them from loading."""
        if self.error is not None or self.manifest is None:
            return self.error or error_info(f"code location {self.name!r} has no definitions")
        deploy_data = self.manifest.code_location_deploy_data
        return ListRepositoriesResponse(
            repository_symbols=[
                LoadableRepositorySymbol(repository_name=repository.name, attribute=repository.name)
                for repository in self.manifest.repositories
            ],
            executable_path=self.manifest.executable_path,
            repository_code_pointer_dict={
                repository.name: repository.code_pointer
                for repository in self.manifest.repositories
            },
            entry_point=(
                get_python_environment_entry_point(deploy_data.executable_path)
                if deploy_data.executable_path
                else DEFAULT_DAGSTER_ENTRY_POINT
            ),
            container_image=self.manifest.container_image,
            container_context=deploy_data.container_context,
            dagster_library_versions=self.manifest.dagster_library_versions,
            defs_state_info=deploy_data.defs_state_info,
        )


def view_of(location: Location, server: CodeServer | None, seen: AgentsSeen) -> LocationView:
    """Picture a location. An error of the newest upload hides the last good one."""
    update = update_text(location, server, seen)
    if location.error is not None:
        error = deserialize_value(location.error, SerializableErrorInfo)
        if update is not None:
            error = error._replace(message=f"{_of_before(update)}\n\n{error.message}")
    elif location.manifest is None:
        error = error_info(waiting_text(location, server, seen))
    else:
        error = None
    manifest = location.manifest if error is None else None
    shown = f"{location.name}\0{manifest or ''}\0{error or ''}"
    return LocationView(
        deployment=location.deployment,
        is_branch=location.is_branch,
        name=location.name,
        face_name=location.face_name,
        agent_queue=location.agent_queue,
        server_id=hashlib.sha256(shown.encode()).hexdigest()[:32],
        manifest=(
            deserialize_value(manifest, DagsterCloudCodeLocationManifest) if manifest else None
        ),
        error=error,
        update=update,
    )


def _of_before(update: str) -> str:
    return f"{update[0].upper()}{update[1:]}\nUntil then, the error of what was loaded last:"


def error_info(message: str) -> SerializableErrorInfo:
    """Wrap a message of ours for Dagster; there is no stack that would help its reader."""
    return SerializableErrorInfo(
        message=message + "\n", stack=[], cls_name=DagsterUserCodeProcessError.__name__
    )
