"""The door under connections that have no token, and what becomes of websockets' places."""

from __future__ import annotations

import asyncio
import socket
import ssl

import httpx
import pytest

from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.door.attempts import Attempts
from hpc_agent.control_plane.door.visitor import ByToken, UserTokens
from hpc_agent.control_plane.http.auth import TokenFinder
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.sessions import Sessions
from hpc_agent.control_plane.store.tokens import Tokens
from hpc_agent.control_plane.tls import ServerTls
from hpc_agent.inbound.limits import Limits
from tests.control_plane.door.conftest import Setting, open_setting
from tests.control_plane.door.test_subscriptions import bearer, connected, heard, say
from tests.control_plane.door.upstream import Webserver


def port(setting: Setting) -> int:
    number = httpx.URL(setting.url).port
    assert number is not None
    return number


async def test_thousand_idle_connections_do_not_stop_the_door(setting: Setting) -> None:
    """Visitors at the very address that they come from are served; open websockets stay."""
    loop = asyncio.get_running_loop()
    sockets = []
    async with connected(setting, bearer(setting)) as websocket:
        for _ in range(1000):
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port(setting)))
            sockets.append(sock)
        try:
            await asyncio.sleep(1.5)
            for _ in range(3):
                async with setting.script() as script:
                    assert (await script.get("/")).status_code == 200
            await say(websocket, type="connection_init")
            assert await heard(websocket) == {"type": "connection_ack"}
        finally:
            for each in sockets:
                each.close()


@pytest.mark.parametrize(("path", "status"), [("/graphql", 401), ("/x", 401)])
async def test_no_body_is_read_of_a_stranger(setting: Setting, path: str, status: int) -> None:
    """But for a login, which is 4 KiB at most; the connection ends with the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port(setting), ssl=setting.trust)
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {100 << 20}\r\n\r\n".encode()
    )
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert b"connection: close" in answer.lower()
    writer.transport.abort()


async def test_login_is_heard_and_makes_no_friend(setting: Setting) -> None:
    """A wrong token is answered at once, and the connection stays a stranger's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port(setting), ssl=setting.trust)
    form = b"token=wrong"
    writer.write(
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        + f"Origin: https://127.0.0.1\r\nContent-Length: {len(form)}\r\n".encode()
        + b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        + form
    )
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer.lower()
    assert b"not a valid user token" in answer
    writer.close()


async def test_headers_that_drip_are_not_waited_for(setting: Setting) -> None:
    """As at the gateway: ten seconds in all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port(setting), ssl=setting.trust)
    async with asyncio.timeout(20):
        with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
            for sign in "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + "x" * 1000:
                writer.write(sign.encode())
                await writer.drain()
                await asyncio.sleep(0.1)
                if reader.at_eof():
                    raise ConnectionResetError
    writer.transport.abort()


async def test_place_of_a_websocket_is_given_back(
    database: Database, webserver: Webserver, tls: ServerTls
) -> None:
    """More of them come and go than there is room for at a time."""
    audit = AuditLog(webserver.socket.with_name("audit.log"))
    recognition = ByToken(
        UserTokens(TokenFinder(Tokens(database)), audit, Attempts()), Sessions(database)
    )
    room = Limits(connections=10)
    async with open_setting(database, webserver, tls, recognition, limits=room) as setting:
        token = bearer(setting)
        for _ in range(30):
            async with connected(setting, token):
                pass
        async with setting.script() as script:
            assert (await script.get("/")).status_code == 200
