"""A user's role holds at the agent API's address too."""

from __future__ import annotations

import httpx
import pytest

from hpc_agent.control_plane.audit.reader import read_entries
from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.store.locations import NewLocation
from hpc_agent.control_plane.store.tokens import TokenKind
from tests.control_plane.conftest import AgentApi

DELETE = 'mutation { deleteLocation(locationName: "a") { __typename } }'
CASES = [
    ("{ deployments { deploymentName } }", 0),
    ('mutation { markCliEvent(eventType: JOB_LAUNCH, durationSeconds: 1, success: true) }', 0),
    ("mutation { launchRun { __typename } }", 1),
    ("mutation { ...F launchRun { __typename } } fragment F on M { wipeAssets { __typename } }", 2),
    ("mutation { eventLogs { Wipe { ok } } }", 2),
    ("mutation { ...F } fragment F on Mutation { eventLogs { Wipe { ok } } }", 2),
    (DELETE, 2),
]  # fmt: skip


async def ask(api: AgentApi, gateway: Gateway, role: Role, document: str) -> str:
    _, secret = gateway.services.tokens.create("user", TokenKind.USER, role)
    headers = {"Dagster-Cloud-Api-Token": secret}
    answer = await api.client.post("/graphql", json={"query": document}, headers=headers)
    return answer.text


@pytest.mark.parametrize(("document", "needed"), CASES)
async def test_user_may_what_the_role_allows(
    api: AgentApi, gateway: Gateway, document: str, needed: int
) -> None:
    """Both what the gateway answers itself and what it passes to the webserver."""
    for level, role in enumerate(Role):
        answer = await ask(api, gateway, role, document)
        assert ("your role is" in answer) == (level < needed), answer


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/store_events"), ("PUT", "/upload_workspace_entry"), ("GET", "/gen_logs_url"),
     ("POST", "/gen_artifact_post"), ("PUT", "/upload_api_response")],
)  # fmt: skip
async def test_agents_paths_are_not_for_lesser_users(
    api: AgentApi, gateway: Gateway, role: Role, method: str, path: str
) -> None:
    """They write what agents and run workers write."""
    _, secret = gateway.services.tokens.create("user", TokenKind.USER, role)
    headers = {"Dagster-Cloud-Api-Token": secret}
    answer = await api.client.request(method, path, headers=headers)
    assert answer.status_code == 403


async def test_agent_needs_no_role(api: AgentApi) -> None:
    answer: httpx.Response = await api.client.post("/graphql", json={"query": DELETE})
    assert "your role is" not in answer.text


async def test_gateway_notes_what_users_change(api: AgentApi, gateway: Gateway, home: Home) -> None:
    """Deploys, what goes to the webserver, and what was refused; agents' writes are not noted."""
    new = NewLocation(name="a", agent_queue=None, deploy_data="{}")
    gateway.services.locations.deploy("prod", [new])
    await ask(api, gateway, Role.ADMIN, DELETE)
    await ask(api, gateway, Role.ADMIN, DELETE)
    await ask(api, gateway, Role.VIEWER, DELETE)
    await ask(api, gateway, Role.ADMIN, "mutation { launchRun { __typename } }")
    await ask(api, gateway, Role.ADMIN, "{ deployments { deploymentName } }")
    await api.client.post("/graphql", json={"query": DELETE})

    found = [
        (each["action"], each["role"], each["outcome"]) for each in read_entries(home.audit_log)
    ]

    assert found == [
        ("deploy", "admin", "ok"),
        ("deploy", "admin", "failed"),
        ("deploy", "viewer", "refused"),
        ("launch", "admin", "unknown"),
    ]
