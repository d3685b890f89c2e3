"""What the agent API client makes of answers that are none."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_agent.config import ControlPlane
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.errors import ControlPlaneUnavailableError
from tests.agent.gateway import scripted_gateway

NOTICE = {"maintenance": {"message": "moving disks", "timeout": 3600, "retry_interval": 10}}


async def ask(status: int, content: Any) -> str:
    """Return the error of a call that is answered like this."""
    with scripted_gateway(lambda _: (status, content)) as gateway:
        settings = ControlPlane(url=gateway.url)
        async with AgentApi(settings, token=lambda: "token", agent_id="agent") as api:
            with pytest.raises(ControlPlaneUnavailableError) as raised:
                await api.graphql("{ __typename }", {}, deployment="prod")
    return str(raised.value)


@pytest.mark.parametrize("status", [200, 503])
async def test_maintenance_is_told_in_the_words_of_the_operator(status: int) -> None:
    """Whatever status the notice comes with, the agent waits and says why."""
    assert await ask(status, NOTICE) == "the control plane is in maintenance: moving disks"


@pytest.mark.parametrize("content", [{"maintenance": None}, ["maintenance"], {"error": "busy"}])
async def test_unavailable_control_plane_is_quoted(content: Any) -> None:
    """What is no notice is shown as it came."""
    assert "POST /graphql: HTTP 503" in await ask(503, content)
