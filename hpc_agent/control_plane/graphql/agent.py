"""What an agent itself asks and tells: its work, its workspace, its heartbeats."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ariadne import MutationType, ObjectType, QueryType
from dagster_cloud.api.dagster_cloud_api import TimestampedError
from dagster_shared.serdes import deserialize_value, serialize_value
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.deploy import deploy_data_for_agent
from hpc_agent.control_plane.graphql.context import OK, context, instance
from hpc_agent.control_plane.presence import LEASE_SECONDS, owner_of
from hpc_agent.control_plane.received import received
from hpc_agent.control_plane.store.agents import Agent
from hpc_agent.control_plane.store.locations import Location
from hpc_agent.control_plane.store.requests import Request, Serves
from hpc_agent.control_plane.store.tokens import TokenKind
from hpc_agent.errors import ControlPlaneRefusedError

DEFAULT_POP_LIMIT = 10
"""dagster_cloud/agent/dagster_cloud_agent.py: "limit (implicit default 10)"."""

query = QueryType()
mutation = MutationType()
deployment_type = ObjectType("Deployment")
agent_mutation = ObjectType("UserCloudAgentMutation")
defs_state = ObjectType("DefsStateMutation")
bindables = [query, mutation, deployment_type, agent_mutation, defs_state]


@query.field("deployments")
def resolve_deployments(
    _: object,
    info: GraphQLResolveInfo,
    deployment_names: Sequence[str] | None = None,
    include_all_serverless_deployments: bool | None = None,
) -> list[dict[str, object]]:
    return [
        {"deployment_name": deployment.name, "is_branch_deployment": deployment.is_branch}
        for deployment in context(info).services.deployments.all()
        if deployment_names is None or deployment.name in deployment_names
    ]


@deployment_type.field("workspaceEntries")
def resolve_workspace_entries(
    deployment: Mapping[str, Any],
    info: GraphQLResolveInfo,
    agent_queues: Sequence[str | None] | None = None,
) -> list[dict[str, object]]:
    queues = (None,) if agent_queues is None else agent_queues
    return [
        workspace_entry(location)
        for location in context(info).services.locations.all(deployment["deployment_name"])
        if location.agent_queue in queues
    ]


def workspace_entry(location: Location) -> dict[str, object]:
    return {
        "location_name": location.name,
        "serialized_deployment_metadata": deploy_data_for_agent(location),
        "has_outdated_data": location.is_outdated,
        "has_load_error": location.error is not None,
        "metadata_timestamp": location.updated_at,
    }


@query.field("deploymentInfo")
def resolve_deployment_info(_: object, info: GraphQLResolveInfo) -> dict[str, str]:
    request = context(info)
    found = request.services.deployments.get(request.deployment)
    is_branch = found is not None and found.is_branch
    return {
        "deployment_name": request.deployment,
        "deployment_type": "BRANCH" if is_branch else "PRODUCTION",
    }


@query.field("agents")
def resolve_agents(
    _: object, info: GraphQLResolveInfo, heartbeated_since: float | None = None
) -> list[dict[str, object]]:
    agents = context(info).services.agents.all(since=heartbeated_since or 0.0)
    return [
        {
            "id": agent.agent_id,
            "status": _status(agent),
            "errors": deserialize_value(agent.errors, list),
        }
        for agent in {agent.agent_id: agent for agent in agents}.values()
    ]


def _status(agent: Agent) -> str:
    if time.time() - agent.heartbeat_at > LEASE_SECONDS:
        return "NOT_RUNNING"
    return "UNHEALTHY" if deserialize_value(agent.errors, list) else "RUNNING"


@query.field("scopedSecrets")
def resolve_scoped_secrets(
    _: object, info: GraphQLResolveInfo, location_name: str | None = None
) -> list[object]:
    """Answer none: on a cluster, secrets come from the site's environment, not from here."""
    return []


@query.field("latestDefsStateInfo")
def resolve_latest_defs_state_info(_: object, info: GraphQLResolveInfo) -> str | None:
    storage = instance(info).defs_state_storage
    found = storage.get_latest_defs_state_info() if storage else None
    return serialize_value(found) if found else None


@defs_state.field("setLatestDefsStateVersion")
def resolve_set_latest_defs_state_version(
    _: object, info: GraphQLResolveInfo, key: str, version: str | None = None
) -> dict[str, bool]:
    storage = instance(info).defs_state_storage
    if storage is None:
        raise ControlPlaneRefusedError("this instance has no defs_state_storage")
    storage.set_latest_version(key, version)
    return OK


@mutation.field("userCloudAgent")
def resolve_user_cloud_agent(_: object, info: GraphQLResolveInfo) -> dict[str, object]:
    if context(info).token.kind is not TokenKind.AGENT:
        raise ControlPlaneRefusedError(
            "agents need an agent token: hpc-agent control-plane token create --kind agent"
        )
    return {}


@agent_mutation.field("popUserCloudAgentRequests")
def resolve_pop(
    _: object,
    info: GraphQLResolveInfo,
    limit: int | None = None,
    for_branch_deployments: bool | None = None,
    for_full_deployments: Sequence[str] | None = None,
    agent_queues: Sequence[str | None] | None = None,
) -> list[dict[str, Any]]:
    request = context(info)
    owner = owner_of(request.agent_id, request.token.token_id)
    request.services.presence.saw_poll(owner)
    if request.polls_anew and request.agent_id:
        request.services.requests.hand_back_of(owner)
    # An agent may serve no full deployment at all; one from before there were several names none.
    full = [request.deployment] if for_full_deployments is None else for_full_deployments
    serves = Serves(
        deployments=full, branches=bool(for_branch_deployments),
        queues=(None,) if agent_queues is None else agent_queues,
    )  # fmt: skip
    popped = request.services.requests.pop(
        owner=owner, serves=serves, limit=limit or DEFAULT_POP_LIMIT
    )
    return [_agent_request(found) for found in popped]


def _agent_request(request: Request) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "request_api": request.api,
        "request_body": request.body,
        "deployment_name": request.deployment,
        "is_branch_deployment": request.is_branch,
    }


@agent_mutation.field("addAgentHeartbeats")
def resolve_add_agent_heartbeats(
    _: object,
    info: GraphQLResolveInfo,
    serialized_agent_heartbeats: Sequence[Mapping[str, str]] | None = None,
    serialized_errors: Sequence[str] | None = None,
) -> dict[str, bool]:
    request = context(info)
    errors = [received(error, TimestampedError) for error in serialized_errors or ()]
    for heartbeat in serialized_agent_heartbeats or ():
        request.services.heartbeats.receive(
            heartbeat["deployment_name"],
            heartbeat["serialized_agent_heartbeat"],
            token_id=request.token.token_id,
            serialized_errors=serialize_value(errors),
        )
    return OK
