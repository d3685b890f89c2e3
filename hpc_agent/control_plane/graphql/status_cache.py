"""Which partitions of an asset are materialized, as Dagster caches it next to the asset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from dagster import AssetKey, DagsterInstance, PartitionsDefinition
from dagster._core.loader import LoadingContext
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._core.storage.partition_status_cache import AssetStatusCacheValue
from dagster._utils.aiodataloader import BlockingDataLoader, DataLoader
from dagster_cloud.api.dagster_cloud_api import DagsterCloudCodeLocationManifest
from dagster_shared.serdes import deserialize_value
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.graphql.context import OK, RequestContext, context, instance
from hpc_agent.control_plane.graphql.event_logs import event_log_mutations, event_logs, storage
from hpc_agent.control_plane.graphql.filters import Input
from hpc_agent.control_plane.graphql.filters import asset_key as parse_asset_key
from hpc_agent.control_plane.snapshots import SnapshotStore

CACHED_REPOSITORIES = 32
Partitions = Mapping[AssetKey, PartitionsDefinition]
Loaders = dict[type, tuple[DataLoader[Any, Any], BlockingDataLoader[Any, Any]]]

bindables: list[object] = []


@event_logs.field("getAssetStatusCacheValues")
def get_asset_status_cache_values(
    _: object, info: GraphQLResolveInfo, asset_keys: Sequence[Input]
) -> Sequence[AssetStatusCacheValue | None]:
    """Bring the cached values up to date first: who asks computes what to run from them."""
    known = asset_partitions(context(info))
    keys = [AssetKey(key["path"]) for key in asset_keys]
    return storage(info).get_asset_status_cache_values(
        [(key, known.get(key)) for key in keys], _Loading(instance(info))
    )


@event_log_mutations.field("WipeAssetCachedStatusData")
def wipe_asset_cached_status(
    _: object, info: GraphQLResolveInfo, asset_key: str
) -> dict[str, bool]:
    storage(info).wipe_asset_cached_status(parse_asset_key(asset_key))
    return OK


@event_log_mutations.field("UpdateAssetCachedStatusData")
def update_asset_cached_status(
    _: object, info: GraphQLResolveInfo, asset_key: str, cache_values: Input
) -> dict[str, bool]:
    storage(info).update_asset_cached_status_data(
        parse_asset_key(asset_key), AssetStatusCacheValue(**cache_values)
    )
    return OK


def asset_partitions(request: RequestContext) -> Partitions:
    """Return the partitions of all assets in the deployment, as agents uploaded them.

    The call names only the assets; what their partitions are is in the definitions.
    """
    services, found = request.services, dict[AssetKey, PartitionsDefinition]()
    for location in services.locations.all(request.deployment):
        if location.manifest is None:
            continue
        manifest = deserialize_value(location.manifest, DagsterCloudCodeLocationManifest)
        for repository in manifest.repositories:
            found |= _partitions_in(services.snapshots, repository.stored_snapshot.sha1)
    return found


@lru_cache(CACHED_REPOSITORIES)
def _partitions_in(snapshots: SnapshotStore, sha1: str) -> Partitions:
    repository = deserialize_value(snapshots.read(sha1), RepositorySnap)
    return {
        node.asset_key: node.partitions.get_partitions_definition()
        for node in repository.asset_nodes
        if node.partitions is not None
    }


class _Loading(LoadingContext):
    """One call's worth of batched reads."""

    def __init__(self, of: DagsterInstance) -> None:
        self._instance = of
        self._loaders: Loaders = {}

    @property
    def instance(self) -> DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> Loaders:
        return self._loaders
