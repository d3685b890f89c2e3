"""What the agent asks for, and that it is written down before anything happens to it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hpc_agent.agent.poll import PollLoop
from hpc_agent.config import parse_config
from hpc_agent.store import inbox
from tests.agent.conftest import Bench

POPPED = {
    "requestId": "q1",
    "requestApi": "PING_LOCATION",
    "requestBody": "{}",
    "deploymentName": "feature",
    "isBranchDeployment": True,
}


def answer(*requests: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"userCloudAgent": {"popUserCloudAgentRequests": list(requests)}}}


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        (
            {},
            {
                "forBranchDeployments": False,
                "forFullDeployments": ["prod"],
                "agentQueues": [None],
            },
        ),
        (
            {
                "control_plane": {"deployments": ["a", "b"], "branch_deployments": True},
                "agent_queues": {"additional_queues": ["gpu"]},
            },
            {
                "forBranchDeployments": True,
                "forFullDeployments": ["a", "b"],
                "agentQueues": ["gpu", None],
            },
        ),
    ],
)
async def test_poll_asks_for_what_this_agent_serves(
    bench: Bench, settings: dict[str, Any], asked: dict[str, Any]
) -> None:
    """In the name of the organization, as the stock agent does."""
    content = bench.context.config.model_dump(mode="json", exclude_none=True)
    content["control_plane"] |= settings.get("control_plane", {})
    content |= {key: value for key, value in settings.items() if key != "control_plane"}
    context = replace(bench.context, config=parse_config(content, source="test"))
    bench.control_plane.answer = answer()
    await PollLoop(context).step()
    (call,) = bench.control_plane.requests
    assert json.loads(call.body)["variables"] == asked
    assert call.headers["dagster-cloud-scope"] == "organization"


async def test_request_is_written_down_once(bench: Bench) -> None:
    """One may be handed out twice; it is the same request."""
    bench.control_plane.answer = answer(POPPED)
    loop = PollLoop(bench.context)
    await loop.step()
    await loop.step()
    (request,) = await bench.context.store.run(inbox.unanswered)
    assert (request.request_id, request.deployment) == ("q1", "feature")
    assert request.is_branch_deployment
