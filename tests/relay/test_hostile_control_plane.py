"""What jobs send and read through the relay, when the control plane is not what it was."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable

import httpx
import pytest

from hpc_agent.errors import ControlPlaneUnavailableError
from hpc_agent.outgoing.http_client import http_client
from hpc_agent.outgoing.storage_addresses import StorageAddresses
from hpc_agent.relay.upstream import Upstream
from tests.hostile_server import always, answer, hostile_server
from tests.journal.lines import written_lines

from .fake_control_plane import FakeControlPlane, Received, Reply
from .harness import AGENT_TOKEN, HAS_RUN, WAITING, Cluster, event, logs_of, python

LOGS = httpx.URL("/gen_logs_url", params=logs_of("run-id-1"))


def telling(url: str) -> Callable[[Received], Reply | None]:
    """Answer as a control plane that wants logs sent there."""

    def script(call: Received) -> Reply | None:
        if not call.path.startswith("/gen_logs_url"):
            return None
        return Reply(content=json.dumps({"url": url}).encode())

    return script


@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_upload_to_an_address_that_is_no_storage_is_refused(
    cluster: Cluster, control_plane: FakeControlPlane, method: str
) -> None:
    """Nothing is sent, nor read, where the login node alone could."""
    job = cluster.job(argv=python(WAITING))
    with hostile_server(always(answer(b"inside"))) as inside:
        control_plane.script = telling(f"{inside.url}/latest/meta-data")
        async with cluster.relay(), cluster.loopback(job) as client:
            url = (await client.get(LOGS)).json()["url"]
            with written_lines() as lines:
                refused = await client.request(method, url, content=b"log")
        assert refused.status_code == 403
        assert "control_plane.storage_hosts" in refused.json()["errors"][0]["message"]
        assert inside.heads == []
        told = next(entry for entry in lines.entries if entry["logger"] == "hpc_agent.relay.app")
        assert told["key"] == job.key
        assert told["run_id"] == "run-id-1"


async def test_storage_leads_nowhere_else(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """A redirect is no answer that is followed, nor one that a job could follow."""
    job = cluster.job(argv=python(WAITING))
    with hostile_server(always(answer(b"inside"))) as inside:

        def script(call: Received) -> Reply | None:
            if call.path.startswith("/gen_logs_url"):
                told = {"url": f"{control_plane.url}/moved"}
                return Reply(content=json.dumps(told).encode())
            return Reply(status=307, content=b"", headers={"Location": f"{inside.url}/x"})

        control_plane.script = script
        async with cluster.relay(), cluster.loopback(job) as client:
            url = (await client.get(LOGS)).json()["url"]
            moved = await client.put(url, content=b"log")
        assert moved.status_code == 307
        assert "location" not in moved.headers
        assert inside.heads == []


async def test_answer_that_is_large_when_unpacked_is_none(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """To a question and to an event: what came is not kept, and asked for again."""
    packed = gzip.compress(bytes(100 << 20))
    control_plane.script = lambda _: Reply(content=packed, headers={"Content-Encoding": "gzip"})
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay() as relay, cluster.loopback(job) as client:
        asked = {"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
        answered = await client.post("/graphql", json=asked, headers={"Idempotency-Key": "r"})
        assert answered.status_code == 503
        assert "larger than 16 MiB" in answered.text
        stored = await client.post("/graphql", json=event(1), headers={"Idempotency-Key": "e"})
        assert stored.status_code == 200
        assert relay.spooled == 1


async def test_cookies_of_one_job_do_not_reach_another(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """They share connections, and nothing else."""
    control_plane.script = lambda _: Reply(headers={"Set-Cookie": "whose=first; Path=/"})
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        for number in range(2):
            await client.post(
                "/graphql", json=event(number), headers={"Idempotency-Key": f"{number}"}
            )
    assert len(control_plane.requests) == 2
    assert not any("cookie" in request.headers for request in control_plane.requests)
    assert control_plane.requests[1].headers["dagster-cloud-api-token"] == AGENT_TOKEN


async def test_answer_whose_head_drips_is_given_up() -> None:
    """Each of its bytes comes in time."""

    def drip(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            connection.sendall(f"X-{number}: x\r\n".encode())
            time.sleep(0.1)

    with hostile_server(drip) as server:
        async with http_client(base_url=server.url, connections=2, kept=0) as client:
            addresses = StorageAddresses(server.url, [])
            upstream = Upstream(
                api=client, storage=client, addresses=addresses, credentials=lambda _: {}
            )
            started = time.monotonic()
            with pytest.raises(ControlPlaneUnavailableError, match="does not answer within 1 s"):
                await upstream.open(
                    "POST", "/graphql", deployment="prod", headers={}, content=b"", seconds=1.0
                )
            assert time.monotonic() - started < 3
