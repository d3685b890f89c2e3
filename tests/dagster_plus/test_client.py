"""What the agent API client makes of answers that are none."""

from __future__ import annotations

import socket
import time
from email.utils import formatdate
from typing import Any

import pytest

from hpc_agent.config import ControlPlane
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.errors import ControlPlaneUnavailableError
from tests.agent.gateway import scripted_gateway
from tests.hostile_server import answer, hostile_server

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


@pytest.mark.parametrize(
    ("ahead", "at_the_beginning", "expected"),
    [(0, False, 0), (0, True, 0), (100, False, 100), (-100, False, -100), (-100, True, -100)],
)
async def test_slow_answer_is_no_clock_that_is_wrong(
    ahead: float, at_the_beginning: bool, expected: float
) -> None:
    """Dated when it was asked for, or when it was made: a long poll takes half a minute."""

    def reply(connection: socket.socket, head: str) -> None:
        asked_at = time.time()
        time.sleep(4)
        date = formatdate((asked_at if at_the_beginning else time.time()) + ahead, usegmt=True)
        connection.sendall(answer(b'{"data": {}}', f"Date: {date}"))

    with hostile_server(reply) as server:
        settings = ControlPlane(url=server.url)
        async with AgentApi(settings, token=lambda: "token", agent_id="agent") as api:
            await api.graphql("{ __typename }", {}, deployment="prod")
            assert api.server_time(0.0) == pytest.approx(expected, abs=6)
            assert expected or api.server_time(0.0) == 0
