"""Deployments as the stock ``dagster-cloud branch-deployment`` and ``ci`` commands make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ariadne import UnionType
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.graphql.agent import mutation, query
from hpc_agent.control_plane.graphql.context import context, deployer
from hpc_agent.control_plane.store.deployments import Deployment, branch_deployment_name
from hpc_agent.errors import ConfigError, ControlPlaneRefusedError

ENDED = frozenset({"CLOSED", "MERGED"})
"""States of a pull request whose branch needs no deployment any more."""

bindables = [
    UnionType(name, lambda value, *_: str(value["__typename"]))
    for name in ("DeploymentOrError", "CreateOrUpdateDeploymentResult", "DeleteDeploymentResult")
]


@query.field("fullDeployments")
def resolve_full_deployments(_: object, info: GraphQLResolveInfo) -> list[dict[str, Any]]:
    found = context(info).services.deployments.all()
    return [_shown(each) for each in found if not each.is_branch]


@query.field("branchDeployments")
def resolve_branch_deployments(_: object, info: GraphQLResolveInfo) -> list[dict[str, Any]]:
    found = context(info).services.deployments.all()
    return [_shown(each) for each in found if each.is_branch]


@query.field("deploymentByName")
def resolve_deployment_by_name(_: object, info: GraphQLResolveInfo, name: str) -> dict[str, Any]:
    found = context(info).services.deployments.get(name)
    if found is None:
        return _failed(f"there is no deployment {name!r}")
    return _shown(found)


@query.field("getBranchDeploymentName")
def resolve_branch_deployment_name(
    _: object, info: GraphQLResolveInfo, repo_name: str, branch_name: str
) -> str:
    return branch_deployment_name(repo_name, branch_name)


@mutation.field("createOrUpdateBranchDeployment")
def resolve_create_or_update(
    _: object,
    info: GraphQLResolveInfo,
    branch_data: Mapping[str, Any],
    commit: Mapping[str, Any],
    base_deployment_name: str | None = None,
    snapshot_base_condition: str | None = None,
) -> dict[str, Any]:
    """Make or renew a branch's deployment, or delete it when its pull request has ended.

    There is no comparison with a base deployment here, so the last two arguments change nothing.
    """
    known = deployer(info).services.deployments
    deployment = known.create_or_update_branch(
        branch_data["repo_name"], branch_data["branch_name"], commit["commit_hash"]
    )
    if (branch_data.get("pull_request_status") or "").upper() in ENDED:
        known.delete(deployment.name)
    return _shown(deployment)


@mutation.field("deleteDeployment")
def resolve_delete(_: object, info: GraphQLResolveInfo, deployment_id: int) -> dict[str, Any]:
    known = deployer(info).services.deployments
    found = next((each for each in known.all() if each.deployment_id == deployment_id), None)
    if found is None:
        raise ControlPlaneRefusedError(f"there is no deployment with id {deployment_id}")
    try:
        known.delete(found.name)
    except ConfigError as error:
        return _failed(str(error))
    return _shown(found)


def _shown(deployment: Deployment) -> dict[str, Any]:
    return {
        "__typename": "DagsterCloudDeployment",
        "deployment_name": deployment.name,
        "deployment_id": deployment.deployment_id,
        "deployment_type": "BRANCH" if deployment.is_branch else "PRODUCTION",
    }


def _failed(message: str) -> dict[str, Any]:
    return {"__typename": "PythonError", "message": message, "stack": [], "error_chain": []}
