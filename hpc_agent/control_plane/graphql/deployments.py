"""Deploying locations with the stock ``dagster-cloud`` command (dagster_cloud_cli/gql.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ariadne import UnionType
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import deserialize_value
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.deploy import locations_of
from hpc_agent.control_plane.graphql import branches
from hpc_agent.control_plane.graphql.agent import mutation, query, workspace_entry
from hpc_agent.control_plane.graphql.context import RequestContext, context, deployer
from hpc_agent.control_plane.store.locations import Location
from hpc_agent.errors import ConfigError, ControlPlaneRefusedError

IGNORED_KEYS = frozenset({"git"})
"""Which commit a deploy comes from; there is no UI here that would show it."""


def _typename(value: Mapping[str, Any], *_: object) -> str:
    return str(value["__typename"])


bindables = [
    UnionType(name, _typename)
    for name in (
        "WorkspaceOrError",
        "LocationOrLoadError",
        "AddOrUpdateLocationResult",
        "DeployLocationsResult",
        "ReconcileLocationsResult",
        "DeleteLocationResult",
    )
] + branches.bindables


@query.field("currentDeployment")
def resolve_current_deployment(_: object, info: GraphQLResolveInfo) -> dict[str, str]:
    return {"deployment_name": context(info).deployment, "agent_type": "HYBRID"}


@query.field("workspace")
def resolve_workspace(_: object, info: GraphQLResolveInfo) -> dict[str, Any]:
    request = context(info)
    found = request.services.locations.all(request.deployment)
    return {"workspace_entries": [workspace_entry(location) for location in found]}


@query.field("workspaceOrError")
def resolve_workspace_or_error(_: object, info: GraphQLResolveInfo) -> dict[str, Any]:
    request = context(info)
    found = request.services.locations.all(request.deployment)
    return {
        "__typename": "Workspace",
        "location_entries": [
            {
                "name": location.name,
                "load_status": "LOADING" if location.is_outdated else "LOADED",
                "location_or_load_error": _location_or_error(location),
            }
            for location in found
        ],
    }


@mutation.field("addOrUpdateLocationFromDocument")
def resolve_add_or_update(
    _: object, info: GraphQLResolveInfo, document: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        names = _deploy(deployer(info), {"locations": [document]})
    except ConfigError as error:
        return _invalid(error)
    return {"__typename": "WorkspaceEntry", "location_name": names[0]}


@mutation.field("deployLocations")
def resolve_deploy_locations(
    _: object, info: GraphQLResolveInfo, document: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        names = _deploy(deployer(info), document)
    except ConfigError as error:
        return _invalid(error)
    entries = [{"location_name": name} for name in names]
    return {"__typename": "DeployLocationsSuccess", "locations": entries}


@mutation.field("reconcileLocationsFromDocument")
def resolve_reconcile_locations(
    _: object, info: GraphQLResolveInfo, document: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        names = _deploy(deployer(info), document, prune=True)
    except ConfigError as error:
        return _invalid(error)
    entries = [{"location_name": name} for name in names]
    return {"__typename": "ReconcileLocationsSuccess", "locations": entries}


@mutation.field("deleteLocation")
def resolve_delete_location(
    _: object, info: GraphQLResolveInfo, location_name: str
) -> dict[str, Any]:
    request = deployer(info)
    if not request.services.locations.remove(request.deployment, location_name):
        raise ControlPlaneRefusedError(
            f"deployment {request.deployment!r} has no location {location_name!r}"
        )
    return {"__typename": "DeleteLocationSuccess", "location_name": location_name}


def _deploy(
    request: RequestContext, document: Mapping[str, Any], *, prune: bool = False
) -> list[str]:
    locations = document.get("locations")
    if not isinstance(locations, list):
        raise ConfigError("document: locations must be a list")
    stripped = [
        {key: value for key, value in each.items() if key not in IGNORED_KEYS}
        if isinstance(each, Mapping)
        else each
        for each in locations
    ]
    new = locations_of({**document, "locations": stripped}, where="document")
    request.services.locations.deploy(request.deployment, new, prune=prune)
    return [location.name for location in new]


def _location_or_error(location: Location) -> dict[str, Any] | None:
    if location.error is not None:
        error = deserialize_value(location.error, SerializableErrorInfo)
        return {"__typename": "PythonError", **_error(error), "error_chain": _chain(error)}
    if location.manifest is None:
        return None
    return {"__typename": "RepositoryLocation", "name": location.name}


def _chain(error: SerializableErrorInfo) -> list[dict[str, Any]]:
    chain = []
    cause = error.cause
    while cause is not None:
        chain.append({"is_explicit_link": True, "error": _error(cause)})
        cause = cause.cause
    return chain


def _error(error: SerializableErrorInfo) -> dict[str, Any]:
    return {"message": error.message, "class_name": error.cls_name, "stack": error.stack}


def _invalid(error: ConfigError) -> dict[str, Any]:
    return {"__typename": "InvalidLocationError", "errors": [str(error)]}
