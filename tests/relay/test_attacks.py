"""What a job with a token tries at the relay: to write elsewhere, and to bring it down."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest

from hpc_agent.relay.identity import Permissions
from hpc_agent.relay.server import Relay

from .fake_control_plane import FakeControlPlane
from .harness import STORE_EVENT, WAITING, Cluster, Kind, logs_of, python

SET_STATE = """mutation ($key: String!, $version: String) {
    defsState { setLatestDefsStateVersion(key: $key, version: $version) { ok } }
}"""
OWN = "run-id-1"


@asynccontextmanager
async def attacker(
    cluster: Cluster, *, kind: Kind = "run_worker", access: Permissions | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield what user code has: the loopback of its job."""
    number = 1 + len(cluster.jobs.identities)
    job = cluster.job(number, kind=kind, argv=python(WAITING), access=access or Permissions())
    async with cluster.relay(), cluster.loopback(job) as client:
        yield client


def packed(*runs: Any, **more: Any) -> bytes:
    entries = [{"__class__": "EventLogEntry", "run_id": run} for run in runs]
    content = {"__class__": "StoreEventBatchRequest", "event_log_entries": entries, **more}
    return zlib.compress(json.dumps(content).encode())


def part(boundary: str, content: bytes) -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode()


async def test_two_boundaries_are_read_once(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """What reaches the control plane was made by the relay, of the events that were checked."""
    first, last = part("first", packed(OWN)), part("last", packed("other"))
    async with attacker(cluster) as client:
        for kind in (
            "multipart/form-data; boundary=first; boundary=last",
            "multipart/form-data; boundary=last; boundary=first",
            "multipart/form-data; boundary=first; boundary*=utf-8''last",
            'multipart/form-data; boundary="first"; charset=x, multipart/form-data; boundary=last',
        ):
            for body in (first + last, last + first):
                await client.put("/store_events", content=body, headers={"Content-Type": kind})
    assert control_plane.requests
    for received in control_plane.requests:
        kind = received.headers["content-type"]
        boundary = kind.removeprefix("multipart/form-data; boundary=")
        assert boundary.isalnum()
        content = received.body.split(b"\r\n\r\n", 1)[1].rsplit(f"\r\n--{boundary}--".encode())[0]
        entries = json.loads(zlib.decompress(content))["event_log_entries"]
        assert [entry["run_id"] for entry in entries] == [OWN]


@pytest.mark.parametrize(
    "body",
    [
        part("x", packed("other")),
        part("x", packed([OWN])),
        part("x", packed(None)),
        part("x", packed(OWN, __class__="DagsterRun")),
        part("x", zlib.compress(b"[]")),
        part("x", zlib.compress(b'{"__class__": "StoreEventBatchRequest"}')),
        part("x", zlib.compress(b"[" * 100_000)),
        part("x", packed(OWN)[:-3]),
        part("x", b"no zlib"),
        part("y", packed(OWN)),
        part("x", packed(OWN)) + part("x", packed("other")),
        b"",
    ],
    ids=lambda _: "",
)
async def test_events_that_are_not_the_runs_are_refused(
    cluster: Cluster, control_plane: FakeControlPlane, body: bytes
) -> None:
    """With 4xx, and nothing is passed on."""
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with attacker(cluster) as client:
        answer = await client.put("/store_events", content=body, headers=headers)
    assert answer.status_code in {400, 403, 413}
    assert answer.json()["errors"]
    assert control_plane.requests == []


@pytest.mark.parametrize(
    "changes",
    [
        {"log_key": [OWN, "..", "other", "compute_logs", "step"]},
        {"log_key": [OWN, "%2e%2e", "other"]},
        {"log_key": [OWN, "../other"]},
        {"log_key": [OWN, ""]},
        {"log_key": ["other", "compute_logs", "step"], "run_id": OWN},
        {"log_key": ["other", "compute_logs", "step"], "run_id": "other"},
        {"run_id": "other"},
        {"run_id": [OWN, "other"]},
        {"io_type": "../stdout"},
        {"size_bytes": "²"},
        {"size_bytes": "9" * 5_000},
        {"log_key": []},
    ],
    ids=lambda _: "",
)
async def test_logs_of_other_runs_cannot_be_written(
    cluster: Cluster, control_plane: FakeControlPlane, changes: dict[str, Any]
) -> None:
    """However their place is spelt; the control plane is not asked."""
    async with attacker(cluster) as client:
        answer = await client.get("/gen_logs_url", params=logs_of(OWN) | changes)
    assert answer.status_code in {400, 403}
    assert control_plane.requests == []


async def test_unknown_parameters_are_not_passed_on(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Nor unknown headers, and the known ones in their form only."""
    odd = {"X-Forwarded-For": "1.2.3.4", "Prefer": "wait=300", "User-Agent": "x" * 300}
    async with attacker(cluster) as client:
        answer = await client.get(
            "/gen_logs_url",
            params=logs_of(OWN) | {"deployment": "other", "acl": "public"},
            headers=odd,
        )
        assert answer.status_code == 200
    (received,) = control_plane.requests
    assert dict(httpx.URL(received.path).params) == {
        "log_key": OWN,
        "io_type": "stderr",
        "method": "PUT",
        "run_id": OWN,
        "key": "hkwzqpne",
        "size_bytes": "12",
    }
    assert not {"x-forwarded-for", "prefer"} & received.headers.keys()
    assert "xxx" not in received.headers.get("user-agent", "")


async def test_state_of_another_location_cannot_be_written(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Neither its versions nor which one is the latest; the first to ask for a key has it."""
    cluster.jobs.state_owners["Dbt__theirs__"] = "there"
    mutation = {"query": SET_STATE, "variables": {"key": "Dbt[theirs]", "version": "1"}}
    artifact = {"key": "__state__/Dbt__theirs__/1"}
    for kind in ("run_worker", "code_server"):
        async with attacker(cluster, kind=kind) as client:
            for answer in (
                await client.post("/graphql", json=mutation),
                await client.post("/gen_artifact_post", json=artifact),
                await client.post("/gen_artifact_get", json=artifact),
            ):
                assert answer.status_code == 403
                assert "is that of location 'there'" in answer.text
    assert control_plane.requests == []
    opened = Permissions(operations=frozenset({"write_any_definitions_state"}))
    async with attacker(cluster, access=opened) as client:
        assert (await client.post("/graphql", json=mutation)).status_code == 200


async def test_code_server_writes_into_no_run_of_another_location(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """As far as the agent knows whose a run is; code may make runs by itself."""
    cluster.jobs.locations.update(theirs="there", ours="here")
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with attacker(cluster, kind="code_server") as client:
        for run, is_refused in (("theirs", True), ("ours", False), ("made-by-code", False)):
            record = {"runId": run, "userMessage": "", "level": 20}
            event = {"query": STORE_EVENT, "variables": {"eventRecord": record}}
            for answer in (
                await client.post("/graphql", json=event),
                await client.put("/store_events", content=part("x", packed(run)), headers=headers),
                await client.get("/gen_logs_url", params=logs_of(run)),
            ):
                assert (answer.status_code == 403) is is_refused
        many = part("x", packed(*(f"run-{number}" for number in range(1001))))
        answer = await client.put("/store_events", content=many, headers=headers)
        assert answer.status_code == 413
    assert all(b"theirs" not in received.body for received in control_plane.requests)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/graphql", b"[" * 1_000_000),
        ("/graphql", b'{"query": "{ __typename }", "variables": ' + b'{"a":' * 5_000 + b"1"),
        ("/graphql", b'{"query": ' + b"9" * 5_000 + b"}"),
        ("/graphql", '{"query": "²"}'.encode()),
        ("/graphql", b'{"query": "{ a' + b" { a" * 5_000 + b'"}'),
        ("/graphql", json.dumps({"query": "{" + " runs { x }" * 5_000 + "}"}).encode()),
        ("/graphql", b'{"query": "\\ud800"}'),
        ("/graphql", b"[" + b"[]," * 2_000_000 + b"[]]"),
        ("/gen_artifact_get", b"[" * 100_000),
        ("/gen_artifact_get", b'{"key": {"a": 1}}'),
        ("/_hpc/report", b"[" * 100_000),
        ("/_hpc/report", b'{"event": "started", "pid": ' + b"9" * 5_000 + b"}"),
        ("/_hpc/report", bytes(2 << 20)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_odd_bodies_are_answered_with_4xx(
    cluster: Cluster, control_plane: FakeControlPlane, path: str, content: bytes
) -> None:
    """Deep, long, or no text at all: never a fault of ours."""
    async with attacker(cluster) as client:
        answer = await client.post(path, content=content)
    assert answer.status_code in {400, 403, 413}
    assert control_plane.requests == []


@pytest.mark.parametrize("restart", ["²", "9" * 5_000, "-1", "one", "٣"], ids=lambda _: "")
async def test_odd_restart_counts_are_none(cluster: Cluster, restart: str) -> None:
    """The header is the node program's; a job may send what it likes."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay() as relay, _straight(cluster, relay) as client:
        answer = await client.post(
            "/_hpc/report",
            json={"event": "ready"},
            headers={
                b"Dagster-Cloud-Api-Token": cluster.token(job.key).encode(),
                b"X-Hpc-Restart": restart.encode(),
            },
        )
    assert answer.status_code == 200


@pytest.mark.timeout(120)
async def test_small_bodies_do_not_fill_the_memory(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """500 KB of zlib that would be 500 MB, ten at a time: refused, while others are answered."""
    bomb = part("x", zlib.compress(bytes(500 << 20), 9))
    lists = part("x", zlib.compress(b"[" + b"[]," * 5_000_000 + b"[]]", 9))
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    process = psutil.Process()
    async with attacker(cluster) as client:
        before, peak, slowest = process.memory_info().rss, 0, 0.0

        async def attack(body: bytes) -> int:
            return (await client.put("/store_events", content=body, headers=headers)).status_code

        attacks = [asyncio.create_task(attack(body)) for body in (bomb, lists) * 5]
        while not all(task.done() for task in attacks):
            began = time.monotonic()
            await client.get("/gen_logs_url", params=logs_of(OWN))
            slowest = max(slowest, time.monotonic() - began)
            peak = max(peak, process.memory_info().rss)
        assert {task.result() for task in attacks} <= {400, 413}
    assert peak - before < 400 << 20
    assert control_plane.stored == {}


@asynccontextmanager
async def _straight(cluster: Cluster, relay: Relay) -> AsyncIterator[httpx.AsyncClient]:
    """Talk to the relay itself, as a job can that does not use its node program."""
    told = json.loads((cluster.work_dir / "relay.json").read_text())
    trust = ssl.create_default_context(cadata=told["certificate"])
    trust.check_hostname = False
    async with httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{relay.port}", verify=trust, trust_env=False
    ) as client:
        yield client
