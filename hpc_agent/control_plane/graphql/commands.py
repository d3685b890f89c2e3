"""What else the ``dagster-cloud`` command asks of a deployment (dagster_cloud_cli/gql.py)."""

from __future__ import annotations

from typing import Any

from dagster_cloud_cli.core.workspace import CodeLocationDeployData
from dagster_shared.serdes import deserialize_value
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.graphql.agent import mutation, query
from hpc_agent.control_plane.graphql.context import context, instance
from hpc_agent.control_plane.store.locations import Location

SOURCES = ("python_file", "module_name", "package_name", "autoload_defs_module_name")
SETTINGS = ("image", "working_directory", "executable_path", "attribute", "container_context",
            "agent_queue")  # fmt: skip

bindables: list[object] = []


@query.field("locationsAsDocument")
def resolve_locations_as_document(_: object, info: GraphQLResolveInfo) -> dict[str, Any]:
    """Answer what ``workspace sync`` would take: ``pull`` prints it."""
    request = context(info)
    locations = request.services.locations.all(request.deployment)
    return {"document": {"locations": [location_document(each) for each in locations]}}


def location_document(location: Location) -> dict[str, Any]:
    """Return a location as an entry of dagster_cloud.yaml."""
    data = deserialize_value(location.deploy_data, CodeLocationDeployData)
    source = {name: getattr(data, name) for name in SOURCES if getattr(data, name)}
    settings = {name: getattr(data, name) for name in SETTINGS if getattr(data, name)}
    return {"location_name": location.name, "code_source": source, **settings}


@query.field("deploymentSettings")
def resolve_deployment_settings(_: object, info: GraphQLResolveInfo) -> dict[str, Any]:
    """Answer those of Dagster+'s settings that dagster.yaml of the control plane decides."""
    found = instance(info)
    monitoring = {
        "start_timeout_seconds": found.run_monitoring_start_timeout_seconds,
        "cancel_timeout_seconds": found.run_monitoring_cancel_timeout_seconds,
    }
    retries = {"enabled": found.run_retries_enabled, "max_retries": found.run_retries_max_retries}
    return {"settings": {"run_monitoring": monitoring, "run_retries": retries}}


@mutation.field("markCliEvent")
def resolve_mark_cli_event(_: object, info: GraphQLResolveInfo, **_event: object) -> str:
    """Take note of nothing: Dagster+ counts here how its command is used."""
    return "ok"
