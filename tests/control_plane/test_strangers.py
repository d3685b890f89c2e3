"""The gateway under connections that have no token."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from tests.control_plane.conftest import AgentApi
from tests.control_plane.test_agent_api import graphql

VERSION = "query { __typename }"


async def test_thousand_idle_connections_do_not_stop_the_gateway(api: AgentApi) -> None:
    """Agents behind the very address that they come from are served, on new connections too."""
    loop = asyncio.get_running_loop()
    sockets = []
    for _ in range(1000):
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port(api)))
        sockets.append(sock)
    try:
        await asyncio.sleep(1.5)
        for _ in range(3):
            async with httpx.AsyncClient(
                base_url=api.url, verify=api.trust, headers=api.client.headers, trust_env=False
            ) as other:
                answer = await other.post("/graphql", json={"query": VERSION})
                assert answer.status_code == 200
        assert await graphql(api, VERSION, {}) == {"__typename": "Query"}
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/graphql", 401),
        ("PUT", "/store_events", 401),
        ("PUT", "/uploads/x.y", 400),
        ("PUT", "/uploads/\u00e9.y", 400),
        ("POST", "/artifacts/x.y", 400),
        ("PUT", "/healthz", 405),
    ],
)
async def test_no_body_is_read_of_a_stranger(
    api: AgentApi, method: str, path: str, status: int
) -> None:
    """Wherever it is sent: the answer comes before it, and the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port(api), ssl=api.trust)
    raw = httpx.URL(f"{api.url}{path}").raw_path.decode()
    writer.write(
        f"{method} {raw} HTTP/1.1\r\nHost: x\r\nContent-Length: {100 << 20}\r\n\r\n".encode()
    )
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert b"connection: close" in answer.lower()
    writer.transport.abort()


async def test_signed_address_is_as_good_as_a_token(api: AgentApi) -> None:
    """Who has one needs no token; its body is read."""
    asked = await api.client.get(
        "/gen_logs_url", params={"log_key": ["a", "b"], "io_type": "stdout"}
    )
    async with httpx.AsyncClient(verify=api.trust, trust_env=False) as stranger:
        answer = await stranger.put(asked.json()["url"], content=b"x" * 1_000_000)
    assert answer.json() == {"ok": True}
    assert "connection" not in answer.headers


async def test_clock_is_told(api: AgentApi) -> None:
    """Agents count deadlines by it."""
    assert (await api.client.get("/healthz")).headers["date"].endswith("GMT")


def port(api: AgentApi) -> int:
    return int(httpx.URL(api.url).port or 0)
