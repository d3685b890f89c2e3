"""The relay under connections that have no token, and what its jobs notice of them: nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hpc_agent.relay.server import Relay
from hpc_agent.tls import tightened

from .harness import HAS_RUN, WAITING, Cluster, event, python
from .test_tunnels import dialled

QUERY = {"query": HAS_RUN, "variables": {"runId": "run-id-1"}}


async def test_thousand_idle_connections_do_not_stop_the_relay(cluster: Cluster) -> None:
    """Jobs behind the very address that they come from start, write and end."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay() as relay, crowd(relay, 1000):
        async with cluster.loopback(job) as client:
            for _ in range(5):
                assert (await client.post("/graphql", json=QUERY)).status_code == 200
        node = await cluster.start(cluster.job(2))
        assert await node.wait() == 0
    assert cluster.jobs.events(job.key) == ["started"]


async def test_tunnels_that_are_parked_are_no_strangers(cluster: Cluster) -> None:
    """They stay, however many connections come that say nothing."""
    job = cluster.job(kind="code_server")
    async with cluster.relay() as relay:
        reader, writer, answer = await dialled(cluster, cluster.token(job.key), "g")
        assert answer == b"+"
        async with crowd(relay, 400):
            await asyncio.sleep(3)
        assert relay.connected(job.key)
        assert not reader.at_eof()
        writer.transport.abort()


async def test_greeting_without_an_end_is_answered_and_closed(cluster: Cluster) -> None:
    """Longer than what asyncio's streams hold, which raised where nobody looked."""
    async with cluster.relay() as relay:
        for hello in (b"x" * 5000 + b"\n", b"x" * 70_000, b"x" * (1 << 20)):
            assert await greeted(cluster, relay, hello) == b"-the greeting is too long\n"
        assert await greeted(cluster, relay, b"\n") == b"-the greeting is not understood\n"


async def test_body_of_an_unknown_token_is_not_read(cluster: Cluster) -> None:
    """The answer comes at once, and the connection ends."""
    head = "POST /graphql HTTP/1.1\r\nHost: x\r\nDagster-Cloud-Api-Token: wrong\r\n"
    async with cluster.relay() as relay:
        reader, writer = await dial(cluster, relay, "http/1.1")
        writer.write(f"{head}Content-Length: {1 << 30}\r\n\r\n".encode() + b"x" * 100_000)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in answer.lower()
        writer.transport.abort()


async def test_connection_of_a_job_is_kept_between_requests(cluster: Cluster) -> None:
    """Who is known pays for one handshake only."""
    job = cluster.job(argv=python(WAITING))
    token = cluster.token(job.key)
    async with cluster.relay() as relay:
        reader, writer = await dial(cluster, relay, "http/1.1")
        for number in range(3):
            body = json.dumps(event(number)).encode()
            writer.write(
                b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Dagster-Cloud-Api-Token: %s\r\nContent-Length: %d\r\n\r\n%s"
                % (token.encode(), len(body), body)
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert head.startswith(b"HTTP/1.1 200")
            length = next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.transport.abort()


@asynccontextmanager
async def crowd(relay: Relay, number: int) -> AsyncIterator[None]:
    """Connect without a word, and again whenever a connection is closed."""
    sockets: list[socket.socket] = []

    async def come_again() -> None:
        while True:
            # Fewer a second than a peer may have: the rest is what docs/security.md leaves.
            for each in [each for each in sockets if _is_closed(each)][:20]:
                each.close()
                sockets.remove(each)
                await come()
            await asyncio.sleep(0.5)

    async def come() -> None:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", relay.port))
        sockets.append(sock)

    for _ in range(number):
        await come()
    again = asyncio.create_task(come_again())
    try:
        yield
    finally:
        again.cancel()
        for each in sockets:
            each.close()


def _is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def greeted(cluster: Cluster, relay: Relay, hello: bytes) -> bytes:
    """Greet; return everything that is said until the connection ends."""
    reader, writer = await dial(cluster, relay, "hpc-tunnel/1")
    writer.write(hello)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.transport.abort()


async def dial(
    cluster: Cluster, relay: Relay, protocol: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    announced = await asyncio.to_thread(_announced, cluster.work_dir)
    context = tightened(ssl.create_default_context(cadata=announced))
    context.check_hostname = False
    context.set_alpn_protocols([protocol])
    return await asyncio.open_connection("127.0.0.1", relay.port, ssl=context)


def _announced(work_dir: Path) -> str:
    return str(json.loads((work_dir / "relay.json").read_text())["certificate"])
