"""Repository and job definitions, answered from the snapshots on disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from dagster._core.definitions.selector import JobSelector
from dagster._core.remote_representation.external_data import (
    JobDataSnap,
    JobRefSnap,
    RepositorySnap,
)
from dagster._core.snap import JobSnap
from dagster_cloud.api.dagster_cloud_api import DagsterCloudCodeLocationManifest
from dagster_shared.record import copy
from dagster_shared.serdes import deserialize_value, serialize_value

from hpc_agent.control_plane.snapshots import SnapshotStore
from hpc_agent.errors import ControlPlaneRefusedError

CACHED_REPOSITORIES = 32


class RepositoryReader:
    """Reads uploaded definitions; blocking, for worker threads."""

    def __init__(self, snapshots: SnapshotStore) -> None:
        self._snapshots = snapshots
        self._job_refs = lru_cache(maxsize=CACHED_REPOSITORIES)(self._read_job_refs)

    def repository(
        self, manifest: DagsterCloudCodeLocationManifest, name: str, *, defer_snapshots: bool
    ) -> str:
        """Return a serialized RepositorySnap, with its jobs inside unless they are deferred."""
        serialized = self._snapshots.read(_sha1(manifest, name))
        if defer_snapshots:
            return serialized
        snap = deserialize_value(serialized, RepositorySnap)
        if snap.job_datas is not None:
            return serialized
        jobs = [self._job_data(ref) for ref in snap.get_job_refs()]
        return serialize_value(copy(snap, job_datas=jobs, job_refs=None))

    def job(
        self, manifest: DagsterCloudCodeLocationManifest, repository: str, job_name: str
    ) -> str:
        """Return a serialized JobDataSnap, built from the job's reference and its snapshot."""
        ref = self._job_refs(_sha1(manifest, repository)).get(job_name)
        if ref is None:
            raise ControlPlaneRefusedError(
                f"no job {job_name!r} in repository {repository!r} as the agent uploaded it"
            )
        return serialize_value(self._job_data(ref))

    def missing_jobs(
        self, manifest: DagsterCloudCodeLocationManifest, location_name: str
    ) -> Sequence[JobSelector]:
        """Return the jobs whose snapshots the agent has yet to upload."""
        return [
            JobSelector(
                location_name=location_name, repository_name=repository.name, job_name=ref.name
            )
            for repository in manifest.repositories
            for ref in self._job_refs(repository.stored_snapshot.sha1).values()
            if not self._snapshots.has(ref.snapshot_id)
        ]

    def _read_job_refs(self, sha1: str) -> dict[str, JobRefSnap]:
        snap = deserialize_value(self._snapshots.read(sha1), RepositorySnap)
        return {} if snap.job_datas is not None else {ref.name: ref for ref in snap.get_job_refs()}

    def _job_data(self, ref: JobRefSnap) -> JobDataSnap:
        return JobDataSnap(
            name=ref.name,
            job=self._job_snap(ref.snapshot_id),
            parent_job=self._job_snap(ref.parent_snapshot_id) if ref.parent_snapshot_id else None,
            active_presets=ref.active_presets,
        )

    def _job_snap(self, snapshot_id: str) -> JobSnap:
        return deserialize_value(self._snapshots.read(snapshot_id), JobSnap)


def _sha1(manifest: DagsterCloudCodeLocationManifest, name: str) -> str:
    for repository in manifest.repositories:
        if repository.name == name:
            return str(repository.stored_snapshot.sha1)
    raise ControlPlaneRefusedError(f"no repository {name!r} in what the agent uploaded")
