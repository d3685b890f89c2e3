"""Which agent sees and gets what: deployments, branch deployments, agent queues."""

from __future__ import annotations

from typing import Any

import pytest
from dagster_cloud.agent.queries import GET_USER_CLOUD_REQUESTS_QUERY, WORKSPACE_ENTRIES_QUERY
from dagster_cloud.api.dagster_cloud_api import DagsterCloudApi
from dagster_cloud_cli.core.workspace import CodeLocationDeployData
from dagster_shared.serdes import deserialize_value, serialize_value

from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.request_queue import Ask
from hpc_agent.control_plane.store.deployments import Deployments
from hpc_agent.control_plane.store.locations import NewLocation
from hpc_agent.control_plane.store.requests import RequestState
from tests.control_plane.conftest import AgentApi, on_both_databases
from tests.control_plane.definitions import DEPLOY_DATA
from tests.control_plane.test_agent_api import graphql

pytestmark = on_both_databases


@pytest.fixture
def deployments(gateway: Gateway) -> Deployments:
    """Staging and a branch deployment beside prod."""
    known = gateway.services.deployments
    known.create("staging")
    known.create("a-branch", branch=True)
    return known


async def enqueue(gateway: Gateway, deployment: str, queue: str | None = None) -> None:
    await gateway.services.queue.enqueue(
        Ask(
            api=DagsterCloudApi.LAUNCH_RUN, args=None, deployment=deployment,
            is_branch=deployment == "a-branch", agent_queue=queue, run_id=f"{deployment}/{queue}",
        )
    )  # fmt: skip


async def popped(api: AgentApi, **variables: Any) -> set[tuple[str, bool]]:
    """Poll, and return deployments and whether they are branch deployments."""
    data = await graphql(api, GET_USER_CLOUD_REQUESTS_QUERY, variables)
    requests = data["userCloudAgent"]["popUserCloudAgentRequests"]
    return {(each["deploymentName"], each["isBranchDeployment"]) for each in requests}


PROD, STAGING, BRANCH = ("prod", False), ("staging", False), ("a-branch", True)


@pytest.mark.usefixtures("deployments")
@pytest.mark.parametrize(
    ("serves", "gets"),
    [
        ({"forFullDeployments": ["prod"]}, {PROD}),
        ({"forFullDeployments": ["staging"]}, {STAGING}),
        ({"forFullDeployments": ["a-branch"]}, set()),
        ({"forFullDeployments": ["prod", "staging"]}, {PROD, STAGING}),
        ({"forBranchDeployments": True, "forFullDeployments": []}, {BRANCH}),
        ({"forBranchDeployments": True, "forFullDeployments": ["prod"]}, {PROD, BRANCH}),
        ({"forBranchDeployments": False}, {PROD}),
        ({}, {PROD}),
    ],
)
async def test_agent_gets_requests_of_what_it_serves(
    api: AgentApi, gateway: Gateway, serves: dict[str, Any], gets: set[tuple[str, bool]]
) -> None:
    """Without a list it is the deployment in the header, as for old agents."""
    for deployment in ("prod", "staging", "a-branch"):
        await enqueue(gateway, deployment)

    assert await popped(api, **serves) == gets


@pytest.mark.usefixtures("deployments")
async def test_agent_gets_requests_of_its_queues(api: AgentApi, gateway: Gateway) -> None:
    """An agent queue holds for branch deployments as for full ones."""
    serves = {"forBranchDeployments": True, "forFullDeployments": ["prod"]}
    for deployment in ("prod", "a-branch"):
        await enqueue(gateway, deployment, "gpu")

    assert await popped(api, **serves) == set()
    assert await popped(api, **serves, agentQueues=["cpu", None]) == set()
    assert await popped(api, **serves, agentQueues=["gpu"]) == {PROD, BRANCH}


@pytest.mark.usefixtures("deployments")
async def test_agent_sees_locations_of_its_queues(api: AgentApi, gateway: Gateway) -> None:
    """``workspaceEntries`` lists, by deployment, what an agent of these queues is to serve."""
    data = serialize_value(DEPLOY_DATA)
    new = [
        NewLocation(name="here", agent_queue=None, deploy_data=data),
        NewLocation(name="fast", agent_queue="gpu", deploy_data=data),
    ]
    for deployment in ("prod", "a-branch"):
        gateway.services.locations.deploy(deployment, new)

    async def seen(names: list[str], queues: list[str | None]) -> dict[str, list[str]]:
        variables = {
            "deploymentNames": names, "includeAllServerlessDeployments": False,
            "agentQueues": queues,
        }  # fmt: skip
        found = (await graphql(api, WORKSPACE_ENTRIES_QUERY, variables))["deployments"]
        return {
            each["deploymentName"]: [entry["locationName"] for entry in each["workspaceEntries"]]
            for each in found
        }

    everything = ["prod", "staging", "a-branch", "nowhere"]
    assert await seen(everything, [None]) == {"prod": ["here"], "staging": [], "a-branch": ["here"]}
    assert await seen(["prod"], ["gpu"]) == {"prod": ["fast"]}
    assert await seen(["a-branch"], ["gpu", None]) == {"a-branch": ["fast", "here"]}


async def test_user_code_learns_where_it_runs(
    api: AgentApi, gateway: Gateway, deployments: Deployments
) -> None:
    """Deployment and location are in the environment that the agent gives to the code server."""
    new = NewLocation(name="here", agent_queue=None, deploy_data=serialize_value(DEPLOY_DATA))
    gateway.services.locations.deploy("a-branch", [new])
    variables = {"deploymentNames": ["a-branch"], "includeAllServerlessDeployments": False,
                 "agentQueues": [None]}  # fmt: skip

    found = (await graphql(api, WORKSPACE_ENTRIES_QUERY, variables))["deployments"][0]

    serialized = found["workspaceEntries"][0]["serializedDeploymentMetadata"]
    assert deserialize_value(serialized, CodeLocationDeployData).cloud_context_env == {
        "DAGSTER_CLOUD_DEPLOYMENT_NAME": "a-branch",
        "DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT": "1",
        "DAGSTER_CLOUD_LOCATION_NAME": "here",
    }


async def test_deploy_asks_the_agents_of_each_queue(
    api: AgentApi, gateway: Gateway, deployments: Deployments
) -> None:
    """A redeploy reaches whoever serves the location, marked as a branch deployment's."""
    new = NewLocation(name="fast", agent_queue="gpu", deploy_data=serialize_value(DEPLOY_DATA))
    gateway.services.locations.deploy("a-branch", [new])

    await gateway.refresh()

    serves = {"forBranchDeployments": True, "forFullDeployments": []}
    assert await popped(api, **serves) == set()
    assert await popped(api, **serves, agentQueues=["gpu"]) == {BRANCH}


async def test_deleted_deployment_takes_its_requests_along(
    gateway: Gateway, deployments: Deployments
) -> None:
    """Nothing is handed out any more of a deployment that is gone."""
    ask = Ask(api=DagsterCloudApi.LAUNCH_RUN, args=None, deployment="staging", run_id="r")
    request_id = await gateway.services.queue.enqueue(ask)

    deployments.delete("staging")

    request = gateway.services.requests.get(request_id)
    assert request is not None
    assert request.state is RequestState.WITHDRAWN


def test_branch_keeps_its_deployment(deployments: Deployments) -> None:
    """Each push of a branch renews the same deployment; namesakes elsewhere have their own."""
    first = deployments.create_or_update_branch("team/a", "fix", "1")
    again = deployments.create_or_update_branch("team/a", "fix", "2")
    other = deployments.create_or_update_branch("team/b", "fix", "1")

    assert (again.name, again.deployment_id) == (first.name, first.deployment_id)
    assert again.commit_hash == "2"
    assert other.name != first.name
    assert first.name.startswith("fix-")
