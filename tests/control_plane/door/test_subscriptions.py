"""The UI's websocket through the door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from hpc_agent.control_plane.door.visitor import SESSION_COOKIE
from hpc_agent.control_plane.roles import Role
from tests.control_plane.door.conftest import Setting

PROTOCOL = Subprotocol("graphql-ws")
SUBSCRIPTION = "subscription { locationStateChangeEvents { __typename } }"


@asynccontextmanager
async def connected(
    setting: Setting, headers: dict[str, str], protocol: Subprotocol = PROTOCOL
) -> AsyncIterator[ClientConnection]:
    url = setting.url.replace("https", "wss") + "/graphql"
    async with connect(
        url, ssl=setting.trust, subprotocols=[protocol], additional_headers=headers, proxy=None
    ) as websocket:
        yield websocket


def bearer(setting: Setting, role: Role = Role.VIEWER) -> dict[str, str]:
    return {"Authorization": f"Bearer {setting.token(role)}"}


async def say(websocket: ClientConnection, **message: Any) -> None:
    await websocket.send(json.dumps(message))


async def heard(websocket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        message: dict[str, Any] = json.loads(await websocket.recv())
    return message


async def test_subscription_goes_through(setting: Setting) -> None:
    """A viewer may subscribe; the webserver hears that it is one."""
    async with connected(setting, bearer(setting)) as websocket:
        assert websocket.subprotocol == "graphql-ws"
        await say(websocket, type="connection_init", payload={"secret": "x"})
        assert await heard(websocket) == {"type": "connection_ack"}
        payload = {"query": SUBSCRIPTION, "variables": {"a": 1}, "more": "x"}
        await say(websocket, type="start", id="1", payload=payload)
        assert (await heard(websocket))["payload"] == {"data": {"event": 1}}
    started = setting.webserver.messages[-1]
    assert started["headers"]["x-hpc-agent-read-only"] == "yes"
    assert "authorization" not in started["headers"]
    assert started["payload"] == {"query": SUBSCRIPTION, "variables": {"a": 1}}


async def test_browser_subscribes_with_its_session(setting: Setting) -> None:
    async with setting.browser() as browser:
        cookie = f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"
    headers = {"Cookie": cookie, "Origin": setting.url}
    async with connected(setting, headers) as websocket:
        await say(websocket, type="connection_init")
        assert await heard(websocket) == {"type": "connection_ack"}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None])
async def test_page_of_another_site_opens_no_websocket(
    setting: Setting, origin: str | None
) -> None:
    """A browser lets any page connect and sends the cookie along: only Origin tells."""
    async with setting.browser() as browser:
        headers = {"Cookie": f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"}
    if origin is not None:
        headers["Origin"] = origin
    with pytest.raises(InvalidStatus) as refused:
        async with connected(setting, headers):
            pass
    assert refused.value.response.status_code == 403
    assert setting.webserver.sockets == 0


async def test_stranger_opens_no_websocket(setting: Setting) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connected(setting, {}):
            pass
    assert refused.value.response.status_code == 401


async def test_mutation_is_for_no_websocket(setting: Setting) -> None:
    """Not even an admin's: what changes something goes the way where it is judged and noted."""
    async with connected(setting, bearer(setting, Role.ADMIN)) as websocket:
        query = "mutation { launchRun { __typename } }"
        await say(websocket, type="start", id="7", payload={"query": query})
        answer = await heard(websocket)
        assert (answer["type"], answer["id"]) == ("error", "7")
        await say(websocket, type="start", id="8", payload={"query": SUBSCRIPTION})
        assert (await heard(websocket))["type"] == "data"
    assert [message["id"] for message in setting.webserver.messages] == ["8"]


@pytest.mark.parametrize(
    "text", ["x", "[]", '{"type": "subscribe"}', '{"id": 1}', '{"type": "stop", "id": {"a": 1}}',
             "[" * 100_000],
)  # fmt: skip
async def test_unknown_message_ends_the_websocket(setting: Setting, text: str) -> None:
    async with connected(setting, bearer(setting)) as websocket:
        await websocket.send(text)
        with pytest.raises(ConnectionClosed):
            await heard(websocket)
    assert setting.webserver.messages == []


async def test_websocket_ends_with_what_let_it_in(setting: Setting) -> None:
    """A revoked token's page hears nothing more, though it asks for nothing new."""
    async with setting.browser() as browser:
        cookie = f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"
    async with connected(setting, {"Cookie": cookie, "Origin": setting.url}) as websocket:
        await say(websocket, type="connection_init")
        await heard(websocket)

        setting.tokens.revoke(setting.tokens.all()[0].token_id)

        with pytest.raises(ConnectionClosed) as closed:
            await heard(websocket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_websockets_of_a_visitor_are_bounded(setting: Setting) -> None:
    """And those that have ended make room."""
    headers = bearer(setting)
    async with (
        connected(setting, headers),
        connected(setting, headers),
        connected(setting, headers),
    ):
        with pytest.raises(InvalidStatus):
            async with connected(setting, headers):
                pass
    async with asyncio.timeout(20):
        while setting.webserver.sockets:  # noqa: ASYNC110 another server
            await asyncio.sleep(0.01)
    async with connected(setting, headers):
        pass
