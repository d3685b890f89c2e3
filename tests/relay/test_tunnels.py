"""Reverse tunnels: real code servers behind real node programs, and the protocol's edges."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from hpc_agent.relay.server import Relay

from .harness import INTERPRETERS, Cluster, python, until

ECHO_SERVER = """
import socket, sys, threading
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(64)
def serve(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
DEFINITIONS = """
import dagster
@dagster.asset
def an_asset():
    return 1
definitions = dagster.Definitions(assets=[an_asset])
"""


@asynccontextmanager
async def echo_server(
    cluster: Cluster, interpreter: str = sys.executable
) -> AsyncIterator[tuple[Relay, str]]:
    """Run a relay and a code server that echoes."""
    job = cluster.job(kind="code_server", argv=[*python(ECHO_SERVER), {"path": "socket"}])
    async with cluster.relay() as relay:
        await cluster.start(job, python=interpreter)
        assert await relay.wait_connected(job.key, 30)
        yield relay, job.key


@pytest.mark.timeout(180)
async def test_dagster_answers_through_the_tunnel(cluster: Cluster) -> None:
    """`dagster api grpc` on the node serves Dagster's own client at the agent's local socket."""
    from dagster._grpc.client import DagsterGrpcClient

    (cluster.root / "definitions.py").write_text(DEFINITIONS)
    job = cluster.job(
        kind="code_server",
        argv=[
            *(sys.executable, "-m", "dagster", "api", "grpc", "--socket"),
            {"path": "socket"},
            *("--python-file", str(cluster.root / "definitions.py"), "--location-name", "here"),
        ],
        environment={"DAGSTER_HOME": str(cluster.root)},
    )
    async with cluster.relay() as relay:
        node = await cluster.start(job)
        assert await relay.wait_connected(job.key, 120), node.log()
        await until(lambda: "ready" in cluster.jobs.events(job.key))
        client = DagsterGrpcClient(socket=str(relay.tunnel_socket(job.key)))
        repositories = await asyncio.to_thread(client.list_repositories)
        symbols = json.loads(repositories)["repository_symbols"]
        assert [symbol["repository_name"] for symbol in symbols] == ["__repository__"]
        assert await asyncio.to_thread(client.ping, "hello") is not None
        listening = [
            connection
            for process in psutil.Process(node.process.pid).children(recursive=True)
            for connection in process.net_connections(kind="inet")
        ]
        assert listening == []
        node.process.terminate()
        await node.wait()
    assert node.exit_record()["outcome"] == "terminated"


@pytest.mark.parametrize("interpreter", INTERPRETERS)
async def test_many_connections_are_spliced_at_once(cluster: Cluster, interpreter: str) -> None:
    """Twenty connections of a megabyte each come back whole; the socket is the agent's alone."""
    async with echo_server(cluster, interpreter) as (relay, key):
        path = relay.tunnel_socket(key)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        payloads = [os.urandom(1 << 20) for _ in range(20)]
        answers = await asyncio.gather(*(_echo(path, payload) for payload in payloads))
        assert answers == payloads


async def test_a_tunnel_survives_a_restart_of_the_relay(cluster: Cluster) -> None:
    """A code server is reached again by the next agent, without being started anew."""
    async with echo_server(cluster) as (relay, key):
        port = relay.port
    async with cluster.relay() as relay:
        assert relay.port == port
        assert await relay.wait_connected(key, 30)
        assert await _echo(relay.tunnel_socket(key), b"again") == b"again"
    assert cluster.jobs.events(key)[0] == "started"
    assert cluster.jobs.events(key).count("started") == 1


async def test_a_newer_generation_replaces_the_older(cluster: Cluster) -> None:
    """The connections of an earlier start are dropped and may not come back."""
    job = cluster.job(kind="code_server")
    token = cluster.token(job.key)
    async with cluster.relay() as relay:
        old, old_writer, answer = await dialled(cluster, token, "old")
        assert answer == b"+"
        new, new_writer, answer = await dialled(cluster, token, "new")
        assert answer == b"+"
        assert await asyncio.wait_for(old.read(), 10) == b""
        _, back_writer, answer = await dialled(cluster, token, "old")
        assert answer == b"-a newer start of this job has taken over\n"
        assert relay.connected(job.key)
        echo = asyncio.create_task(_echo(relay.tunnel_socket(job.key), b"hello"))
        assert await asyncio.wait_for(new.readexactly(6), 10) == b"Ghello"
        new_writer.write(b"hello")
        assert await echo == b"hello"
        for writer in (old_writer, new_writer, back_writer):
            writer.transport.abort()


@pytest.mark.parametrize(
    ("kind", "token", "expected"),
    [
        ("code_server", "wrong", b"-no job of this agent has this token\n"),
        ("run_worker", None, b"-only code servers have tunnels\n"),
    ],
)
async def test_only_code_servers_may_park(
    cluster: Cluster, kind: str, token: str | None, expected: bytes
) -> None:
    """Strangers and run workers are told why not."""
    job = cluster.job(kind="code_server" if kind == "code_server" else "run_worker")
    async with cluster.relay() as relay:
        _, writer, answer = await dialled(cluster, token or cluster.token(job.key), "g")
        assert answer == expected
        assert not relay.connected(job.key)
        writer.transport.abort()


async def test_a_dead_code_server_is_noticed(cluster: Cluster) -> None:
    """When the node program dies, its parked connections are gone at once."""
    async with echo_server(cluster) as (relay, key):
        cluster.nodes[0].process.kill()
        await until(lambda: not relay.connected(key))
        assert not await relay.wait_connected(key, 0.1)


async def _echo(path: Path, payload: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    async with asyncio.timeout(30):
        writer.write(payload)
        answer = await reader.readexactly(len(payload))
    writer.close()
    await writer.wait_closed()
    return answer


async def dialled(
    cluster: Cluster, token: str, generation: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """Greet the relay as a node program does; return what it answers."""
    announced = json.loads(await asyncio.to_thread((cluster.work_dir / "relay.json").read_text))
    context = ssl.create_default_context(cadata=announced["certificate"])
    context.check_hostname = False
    context.set_alpn_protocols(["hpc-tunnel/1"])
    host, _, port = announced["addresses"][0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(json.dumps({"token": token, "generation": generation}).encode() + b"\n")
    answer = await asyncio.wait_for(reader.read(1), 10)
    if answer == b"-":
        answer += await asyncio.wait_for(reader.read(), 10)
    return reader, writer, answer
