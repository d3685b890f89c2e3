"""What agents upload of a code location: manifests with snapshots, or load errors."""

from __future__ import annotations

from collections.abc import Sequence

from dagster._core.definitions.selector import JobSelector
from dagster._core.remote_representation.external_data import (
    extract_serialized_job_snap_from_serialized_job_data_snap,
)
from dagster_cloud.api.dagster_cloud_api import (
    DagsterCloudCodeLocationManifest,
    DagsterCloudCodeLocationUpdateResult,
    DagsterCloudRepositoryManifest,
    DagsterCloudUploadLocationData,
    DagsterCloudUploadWorkspaceEntry,
)
from dagster_cloud_cli.core.workspace import CodeLocationDeployData
from dagster_shared.serdes import deserialize_value, serialize_value

from hpc_agent.control_plane.faces.repositories import RepositoryReader
from hpc_agent.control_plane.received import refusing
from hpc_agent.control_plane.snapshots import SnapshotStore
from hpc_agent.control_plane.store.locations import Location, Locations
from hpc_agent.errors import ControlPlaneRefusedError


class LocationUploads:
    """Takes in uploads; blocking, for worker threads."""

    def __init__(
        self, locations: Locations, snapshots: SnapshotStore, repositories: RepositoryReader
    ) -> None:
        self._locations = locations
        self._snapshots = snapshots
        self._repositories = repositories

    def update(
        self, deployment: str, result: DagsterCloudCodeLocationUpdateResult
    ) -> Sequence[JobSelector]:
        """Show a location's new definitions or load error.

        Returns the jobs whose snapshots are missing; then nothing has changed, and the agent
        uploads them and tries again.
        """
        location = self._location(deployment, result.location_name)
        if result.error_snapshot is not None:
            error = self._snapshots.read(result.error_snapshot.sha1)
            self._locations.record_upload(
                deployment, location.name, manifest=None, error=error,
                uploaded_for=location.updated_at,
            )  # fmt: skip
            return []
        if result.manifest is None:
            raise ControlPlaneRefusedError(
                f"update of code location {location.name!r} has neither a manifest nor an error"
            )
        return self._show(location, result.manifest)

    def update_legacy(
        self, deployment: str, entry: DagsterCloudUploadWorkspaceEntry
    ) -> Sequence[JobSelector]:
        """The same for agents that upload definitions inside the message."""
        location = self._location(deployment, entry.location_name)
        if entry.upload_location_data is None:
            error = serialize_value(entry.serialized_error_info)
            self._locations.record_upload(
                deployment, location.name, manifest=None, error=error,
                uploaded_for=_uploaded_for(location, entry.code_location_deploy_data),
            )  # fmt: skip
            return []
        manifest = self._manifest(entry.upload_location_data, entry.code_location_deploy_data)
        return self._show(location, manifest)

    def add_legacy_job(self, serialized_job_data: str) -> None:
        """Store a job's snapshot out of a serialized JobDataSnap."""
        with refusing("JobDataSnap"):
            job = extract_serialized_job_snap_from_serialized_job_data_snap(serialized_job_data)
        self._snapshots.add(job)

    def _show(
        self, location: Location, manifest: DagsterCloudCodeLocationManifest
    ) -> Sequence[JobSelector]:
        missing = self._repositories.missing_jobs(manifest, location.name)
        if not missing:
            self._locations.record_upload(
                location.deployment, location.name, manifest=serialize_value(manifest), error=None,
                uploaded_for=_uploaded_for(location, manifest.code_location_deploy_data),
            )  # fmt: skip
        return missing

    def _manifest(
        self, data: DagsterCloudUploadLocationData, deploy_data: CodeLocationDeployData
    ) -> DagsterCloudCodeLocationManifest:
        return DagsterCloudCodeLocationManifest(
            repositories=[
                DagsterCloudRepositoryManifest(
                    name=repository.repository_name,
                    code_pointer=repository.code_pointer,
                    stored_snapshot=self._snapshots.add(repository.serialized_repository_data),
                )
                for repository in data.upload_repository_datas
            ],
            container_image=data.container_image,
            executable_path=data.executable_path,
            dagster_library_versions=data.dagster_library_versions,
            code_location_deploy_data=deploy_data,
        )

    def _location(self, deployment: str, name: str) -> Location:
        location = self._locations.get(deployment, name)
        if location is None:
            raise ControlPlaneRefusedError(
                f"deployment {deployment!r} has no code location {name!r} (any more)"
            )
        return location


def _uploaded_for(location: Location, deploy_data: CodeLocationDeployData) -> float:
    """Return which deploy an upload belongs to: one of older code leaves the location outdated."""
    current = deserialize_value(location.deploy_data, CodeLocationDeployData)
    came_with = deploy_data.with_cloud_context_env(current.cloud_context_env)  # see deploy.py
    return location.updated_at if current == came_with else 0.0
