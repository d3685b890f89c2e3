"""What a job's requests become on their way: child, loopback, TLS, relay, control plane."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network

import psutil
import pytest

from .fake_control_plane import FakeControlPlane
from .harness import (
    AGENT_TOKEN,
    HAS_RUN,
    STORE_EVENT,
    WAITING,
    Cluster,
    event,
    logs_of,
    python,
    until,
)

ADD_HEARTBEAT = """mutation addDaemonHeartbeat($h: String!) {
    runs { addDaemonHeartbeat(serializedDaemonHeartbeat: $h) { ok } }
}"""
STREAM_EVENTS = """
import json, os, time, urllib.request
for number in range(40):
    body = json.dumps({"query": %r, "variables": {"eventRecord":
        {"runId": "run-id-1", "userMessage": "message %%d" %% number, "level": 20}}}).encode()
    request = urllib.request.Request(os.environ["HPC_AGENT_API_URL"] + "/graphql", body, {
        "Dagster-Cloud-Api-Token": os.environ["HPC_AGENT_JOB_TOKEN"],
        "Content-Type": "application/json", "Idempotency-Key": "key-%%d" %% number})
    assert json.load(urllib.request.urlopen(request, timeout=60))["data"], number
    print(number, flush=True)
    time.sleep(0.05)
"""


async def test_the_agent_token_replaces_the_job_token(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """The control plane sees the agent's token, the job's own deployment and the same document."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        answer = await client.post(
            "/graphql",
            json={"query": HAS_RUN, "variables": {"runId": "run-id-1"}},
            headers={"Dagster-Cloud-Deployment": "staging", "X-Forged": "1"},
        )
    assert answer.json() == {"data": {"runs": {"hasRun": {"ok": True}}}}
    (request,) = control_plane.requests
    assert request.headers["dagster-cloud-api-token"] == AGENT_TOKEN
    assert request.headers["dagster-cloud-deployment"] == "prod"
    assert request.headers["dagster-cloud-scope"] == "deployment"
    assert "x-forged" not in request.headers
    assert json.loads(request.body) == {"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
    assert cluster.token(job.key) not in str(request)


@pytest.mark.parametrize("token", [None, "token-run-00000000000000000009", ""])
async def test_the_loopback_answers_nobody_else(
    cluster: Cluster, control_plane: FakeControlPlane, token: str | None
) -> None:
    """Another user of the node gets 401, and nothing is passed on."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        client.headers.pop("Dagster-Cloud-Api-Token")
        headers = {} if token is None else {"Dagster-Cloud-Api-Token": token}
        answer = await client.post("/graphql", json=event(1), headers=headers)
        assert answer.status_code == 401
        assert "job token is required" in answer.text
    assert control_plane.requests == []


async def test_the_relay_knows_its_jobs_only(cluster: Cluster) -> None:
    """A token of no job gets 401 from the relay itself."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        cluster.jobs.identities.clear()
        answer = await client.post("/graphql", json=event(1))
    assert answer.status_code == 401
    assert answer.json() == {"errors": [{"message": "no job of this agent has this token"}]}


async def test_a_document_out_of_scope_is_refused(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """The refusal is a GraphQL error, which the stock client raises at once."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        answer = await client.post(
            "/graphql", json={"query": ADD_HEARTBEAT, "variables": {"h": "{}"}}
        )
        other = await client.put("/upload_api_response", content=b"x")
    assert answer.status_code == 403
    assert "addDaemonHeartbeat is refused to job run-" in answer.json()["errors"][0]["message"]
    assert other.status_code == 403
    assert control_plane.requests == []


async def test_a_large_upload_is_streamed(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """50 MB pass through node and relay without being held in memory; no token is needed."""
    job = cluster.job(argv=python(WAITING))
    block, blocks = b"0123456789abcdef" * 65536, 50
    digest = hashlib.sha256(block * blocks).hexdigest()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(blocks):
            yield block

    async with cluster.relay(), cluster.loopback(job) as client:
        answer = await client.get("/gen_logs_url", params=logs_of("run-id-1"))
        url = answer.json()["url"]
        assert url.startswith(str(client.base_url.join("/_hpc/upload/")))
        assert "X-Signature" not in url
        client.headers.pop("Dagster-Cloud-Api-Token")
        node = psutil.Process(cluster.nodes[0].process.pid)
        before = (node.memory_info().rss, psutil.Process().memory_info().rss)
        answer = await client.put(
            url, content=body(), headers={"Content-Length": str(len(block) * blocks)}
        )
        after = (node.memory_info().rss, psutil.Process().memory_info().rss)
        assert answer.status_code == 200
        forged = await client.put(url[:-6] + "AAAAA=", content=b"x")
        assert forged.status_code == 401
    assert control_plane.uploads == [(len(block) * blocks, digest)]
    assert max(now - then for now, then in zip(after, before, strict=True)) < 20 << 20
    upload = control_plane.requests[0]
    assert upload.path.startswith("/gen_logs_url?")


async def test_an_empty_chunked_upload_gets_a_length(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """`requests` sends empty files chunked; object stores want Content-Length: 0."""
    job = cluster.job(argv=python(WAITING))

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    async with cluster.relay(), cluster.loopback(job) as client:
        url = (await client.get("/gen_logs_url", params=logs_of("run-id-1"))).json()["url"]
        assert (await client.put(url, content=nothing())).status_code == 200
    assert control_plane.uploads == [(0, hashlib.sha256(b"").hexdigest())]


async def test_a_run_streams_events_across_a_relay_restart(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """A relay that comes back on another port is found; no event is lost or doubled."""
    job = cluster.job(argv=python(STREAM_EVENTS % STORE_EVENT))
    async with cluster.relay() as relay:
        node = await cluster.start(job)
        await until(lambda: len(control_plane.stored) >= 5)
        first_port = relay.port
    (cluster.settings.state_dir / "relay-port").unlink()
    async with cluster.relay() as relay:
        assert relay.port != first_port
        assert await node.wait() == 0, (node.job_dir / "stderr").read_text()
    assert list(control_plane.stored) == [f"key-{number}" for number in range(40)]


async def test_a_relay_restart_keeps_its_port(cluster: Cluster) -> None:
    """The port is kept while it is free, and so is the certificate."""
    async with cluster.relay() as relay:
        port = relay.port
        announced = (cluster.work_dir / "relay.json").read_text()
    async with cluster.relay() as relay:
        assert relay.port == port
        assert (cluster.work_dir / "relay.json").read_text() == announced


async def test_answers_do_not_wait_for_acknowledgements(cluster: Cluster) -> None:
    """Nagle's algorithm anywhere on the way would make every call take 40 ms."""
    job = cluster.job(argv=python(WAITING))
    times = []
    async with cluster.relay(), cluster.loopback(job) as client:
        for _ in range(30):
            start = time.perf_counter()
            await client.post(
                "/graphql", json={"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
            )
            times.append(time.perf_counter() - start)
    assert min(times) < 0.035


async def test_only_allowed_networks_may_connect(cluster: Cluster) -> None:
    """relay.allow keeps everybody else out, token or not."""
    job = cluster.job(argv=["true"], relay_timeout_seconds=0)
    elsewhere = replace(cluster.settings, allow=(ip_network("10.0.0.0/8"),))
    async with cluster.relay(elsewhere):
        node = await cluster.start(job)
        assert await node.wait() == 75
    assert cluster.jobs.reports == []
    here = replace(cluster.settings, allow=(ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8")))
    (node.job_dir / "claim").unlink()
    async with cluster.relay(here):
        assert await (await cluster.start(job)).wait() == 0


async def test_bodies_are_bounded(cluster: Cluster, control_plane: FakeControlPlane) -> None:
    """More than 16 MiB in one call is refused with a reason."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        answer = await client.post("/graphql", content=bytes(17 << 20))
    assert answer.status_code == 413
    assert "16 MiB" in answer.text
    assert control_plane.requests == []


async def test_definitions_state_goes_through_the_loopback(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Artifacts of components are fetched and sent by signed addresses; no other artifact is."""
    job = cluster.job(kind="code_server", argv=python(WAITING))
    key = {"key": "__state__/a/b"}
    async with cluster.relay(), cluster.loopback(job) as client:
        url = (await client.post("/gen_artifact_get", json=key)).json()["url"]
        assert url.startswith(str(client.base_url.join("/_hpc/upload/")))
        fetched = await client.get(url, headers={"Dagster-Cloud-Api-Token": ""})
        assert fetched.content == b"state"
        answer = (await client.post("/gen_artifact_post", json=key)).json()
        assert answer["fields"] == {"policy": "p"}
        sent = await client.post(answer["url"], data=answer["fields"], files={"file": b"new"})
        assert sent.status_code == 200
        other = await client.post("/gen_artifact_get", json={"key": "__state__/../secrets"})
        assert other.status_code == 400
    assert len(control_plane.uploads) == 1
