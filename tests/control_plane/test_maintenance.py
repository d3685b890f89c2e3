"""``control-plane maintenance`` and ``schema``, as an operator types them."""

from __future__ import annotations

import asyncio
import json

from graphql import build_schema
from typer.testing import CliRunner, Result

from hpc_agent.cli.control_plane import app
from hpc_agent.control_plane.home import Home
from tests.control_plane.conftest import AgentApi

TYPENAME = {"query": "{ __typename }"}


def invoke(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["maintenance", *arguments, "--home", str(home.root)])


async def answers(api: AgentApi, status: int) -> None:
    """Return once a call is answered with this status."""
    async with asyncio.timeout(20):
        # The switch is in a database that another process writes.
        while (await api.client.post("/graphql", json=TYPENAME)).status_code != status:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_running_gateway_follows_the_switch(api: AgentApi, home: Home) -> None:
    """Calls are put off while it is on, with what the operator says, and served afterwards."""
    on = await asyncio.to_thread(invoke, home, "on", "--message", "moving disks", "--minutes", "30")
    assert on.exit_code == 0, on.output

    await answers(api, 503)
    response = await api.client.get("/check_snapshot")
    told = response.json()["maintenance"]
    assert told["message"] == "moving disks"
    assert 1800 < told["timeout"] < 3 * 3600
    assert response.headers["Retry-After"] == str(told["retry_interval"])
    assert (await api.client.get("/healthz")).status_code == 200

    off = await asyncio.to_thread(invoke, home, "off")

    assert off.exit_code == 0, off.output
    await answers(api, 200)


async def test_upload_addresses_are_put_off_too(api: AgentApi, home: Home) -> None:
    """What needs no token waits as well: nothing is written meanwhile."""
    await asyncio.to_thread(invoke, home, "on")
    await answers(api, 503)

    assert (await api.client.put("/uploads/x", content=b"")).status_code == 503


def test_status_says_until_when(home: Home) -> None:
    """An operator can ask; a time that has passed ends it."""
    invoke(home, "on", "--minutes", "5", "--message", "soon back")
    assert "soon back" in invoke(home, "status").output
    assert "until 20" in invoke(home, "status").output
    invoke(home, "off")

    assert json.loads(invoke(home, "status", "--json").output) == {"maintenance": None}


def test_schema_is_printed_as_sdl() -> None:
    """What is printed is a schema that other tools can read."""
    result = CliRunner().invoke(app, ["schema"])

    assert result.exit_code == 0, result.output
    printed = build_schema(result.output)
    assert printed.query_type is not None
    assert "eventLogs" in printed.query_type.fields
