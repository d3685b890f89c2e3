"""Another user of a compute node against the loopback port of a job that runs there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest

from .harness import HAS_RUN, INTERPRETERS, WAITING, Cluster, python, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becomes another user"
)

QUERY = {"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
MOST_STRANGERS = 64
# What both have besides connections: the child's, the relay's, files.
OTHERS = 20

# Connects as often as it is told, says what it is told, and again whenever it is put out.
ATTACKER = """
import os, socket, sys, time
port, number, said = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
held = []
def connect():
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(said)
    sock.setblocking(False)
    held.append(sock)
for _ in range(number):
    connect()
print(os.getuid(), flush=True)
while True:
    time.sleep(0.2)
    for sock in held[:]:
        try:
            if sock.recv(4096) == b"":
                raise OSError
        except BlockingIOError:
            continue
        except OSError:
            held.remove(sock)
            sock.close()
            connect()
"""
HEAD = "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


@asynccontextmanager
async def attacked(client: httpx.AsyncClient, number: int, said: str) -> AsyncIterator[None]:
    """Let "nobody" hold connections to a loopback port."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        # Nobody may not read our interpreter's place everywhere; the system's is for all.
        *("/usr/bin/python3", "-c", ATTACKER, str(client.base_url.port), str(number), said),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"65534\n"
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("said", ["", HEAD], ids=["idle", "half a head"])
@pytest.mark.parametrize("interpreter", INTERPRETERS)
async def test_connections_of_another_user_take_nothing_from_the_job(
    cluster: Cluster, said: str, interpreter: str
) -> None:
    """Threads and descriptors stay few, and the child is served on new connections too."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job, python=interpreter) as client:
        async with attacked(client, 100, said):
            for _ in range(3):
                async with httpx.AsyncClient(
                    base_url=client.base_url, headers=client.headers, trust_env=False, timeout=30
                ) as child:
                    began = time.monotonic()
                    assert (await child.post("/graphql", json=QUERY)).status_code == 200
                    assert time.monotonic() - began < 10
            process = psutil.Process(cluster.nodes[0].process.pid)
            assert process.num_threads() <= MOST_STRANGERS + OTHERS
            assert process.num_fds() <= MOST_STRANGERS + OTHERS
        await until(lambda: process.num_threads() <= OTHERS)


async def test_connection_without_the_token_ends_by_itself(cluster: Cluster) -> None:
    """It has ten seconds, however its bytes come."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        began = time.monotonic()
        for byte in HEAD.encode() * 10:
            if reader.at_eof():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.1)
        assert reader.at_eof()
        assert time.monotonic() - began < 15
        writer.transport.abort()


async def test_head_has_a_size(cluster: Cluster) -> None:
    """http.server alone would take six megabytes of each, and the job pays for the memory."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        line = b"X: " + b"x" * 60_000 + b"\r\n"
        lines = 0
        with contextlib.suppress(OSError):
            while lines < 90 and not reader.at_eof():
                writer.write(line)
                await writer.drain()
                lines += 1
                await asyncio.sleep(0.01)
        assert lines < 20
        writer.transport.abort()


async def test_no_body_is_read_of_a_stranger(cluster: Cluster) -> None:
    """The answer comes before it."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        port = client.base_url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Length: {1 << 30}\r\n\r\n".encode()
        )
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 401")
        writer.transport.abort()


async def test_name_that_leads_to_the_loopback_is_no_way_in(cluster: Cluster) -> None:
    """DNS rebinding: the token alone does not do."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        for host in ("rebound.example", f"localhost:{client.base_url.port}"):
            answer = await client.post("/graphql", json=QUERY, headers={"Host": host})
            assert answer.status_code == 401
        assert (await client.post("/graphql", json=QUERY)).status_code == 200
