"""Event logs: deleting history, wiping assets, schema and index upkeep.

An agent's or a user's token may do this; the relay refuses it to jobs (relay/scope.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.graphql.context import OK
from hpc_agent.control_plane.graphql.event_logs import event_log_mutations, storage
from hpc_agent.control_plane.graphql.filters import asset_key as parse_asset_key
from hpc_agent.errors import ControlPlaneRefusedError

bindables: list[object] = []


@event_log_mutations.field("DeleteEvents")
def delete_events(_: object, info: GraphQLResolveInfo, run_id: str) -> dict[str, bool]:
    storage(info).delete_events(run_id)
    return OK


@event_log_mutations.field("Wipe")
def wipe(_: object, info: GraphQLResolveInfo) -> dict[str, bool]:
    storage(info).wipe()
    return OK


@event_log_mutations.field("WipeAsset")
def wipe_asset(_: object, info: GraphQLResolveInfo, asset_key: str) -> dict[str, bool]:
    storage(info).wipe_asset(parse_asset_key(asset_key))
    return OK


@event_log_mutations.field("WipeAssetPartitions")
def wipe_asset_partitions(
    _: object, info: GraphQLResolveInfo, asset_key: str, partition_keys: Sequence[str]
) -> dict[str, bool]:
    log = storage(info)
    try:
        log.wipe_asset_partitions(parse_asset_key(asset_key), partition_keys)
    except NotImplementedError as error:
        raise ControlPlaneRefusedError(
            f"{type(log).__name__} cannot wipe single partitions: {error}"
        ) from error
    return OK


@event_log_mutations.field("Upgrade")
def upgrade(_: object, info: GraphQLResolveInfo) -> dict[str, bool]:
    storage(info).upgrade()
    return OK


@event_log_mutations.field("Reindex")
def reindex(_: object, info: GraphQLResolveInfo) -> dict[str, bool]:
    # One document serves reindex_events and reindex_assets of the client.
    storage(info).reindex_events()
    storage(info).reindex_assets()
    return OK


@event_log_mutations.field("EnableSecondaryIndex")
def enable_secondary_index(
    _: object, info: GraphQLResolveInfo, name: str, run_id: str | None = None
) -> dict[str, bool]:
    log = storage(info)
    enable = getattr(log, "enable_secondary_index", None)
    if enable is None:
        raise ControlPlaneRefusedError(f"{type(log).__name__} has no secondary indexes")
    enable(name)
    return OK
