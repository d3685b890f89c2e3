"""Event writes while the control plane is away."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx

from .fake_control_plane import FakeControlPlane
from .harness import HAS_RUN, WAITING, Cluster, event, python, until


async def test_events_are_spooled_and_drained_in_order_exactly_once(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Writes are acknowledged while the control plane is away, and arrive in order later."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay() as relay, cluster.loopback(job) as client:
        await _store(client, 0)
        control_plane.stop()
        for number in range(1, 6):
            answer = await _store(client, number)
            assert answer.json() == {"data": {"eventLogs": {"StoreEvent": {"ok": True}}}}
        assert relay.control_plane_away
        assert relay.spooled == 5
        again = await _store(client, 5)  # the child did not see its answer and repeats the write
        assert again.status_code == 200
        assert relay.spooled == 5
        control_plane.start()
        await until(lambda: relay.spooled == 0)
        await _store(client, 6)
    assert list(control_plane.stored) == [f"key-{number}" for number in range(7)]
    messages = [_message(r.body) for r in control_plane.stored.values()]
    assert messages == [f"message {number}" for number in range(7)]


async def test_the_spool_survives_the_agent(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """What was acknowledged is delivered by the next agent."""
    job = cluster.job(argv=python(WAITING))
    control_plane.stop()
    async with cluster.relay() as relay, cluster.loopback(job) as client:
        for number in range(3):
            await _store(client, number)
        assert relay.spooled == 3
    control_plane.start()
    async with cluster.relay() as relay:
        await until(lambda: relay.spooled == 0)
    assert list(control_plane.stored) == ["key-0", "key-1", "key-2"]


async def test_later_writes_queue_behind_spooled_ones(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """While older events of a run wait, newer ones do not overtake them."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay() as relay, cluster.loopback(job) as client:
        control_plane.status = 503
        await _store(client, 0)
        control_plane.status = 200
        for number in range(1, 20):
            await _store(client, number)
        await until(lambda: relay.spooled == 0)
    assert list(control_plane.stored) == [f"key-{number}" for number in range(20)]


async def test_a_refused_write_is_moved_aside(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """A spooled write that gets a 4xx is kept with its reason and holds up nothing."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay() as relay, cluster.loopback(job) as client:
        control_plane.stop()
        await _store(client, 0)
        control_plane.status = 400
        control_plane.start()
        await until(lambda: relay.spooled == 0)
        assert await relay._spool.rejected() == 1
        control_plane.status = 200
        await _store(client, 1)
    assert list(control_plane.stored) == ["key-1"]


async def test_a_full_spool_pushes_back(cluster: Cluster, control_plane: FakeControlPlane) -> None:
    """Disk is bounded: the writer is asked to come back, in words that name the setting."""
    job = cluster.job(argv=python(WAITING))
    control_plane.stop()
    small = replace(cluster.settings, spool_max_bytes=600)
    async with cluster.relay(small) as relay, cluster.loopback(job) as client:
        answers = [await _store(client, number) for number in range(6)]
        assert relay.spooled >= 1
    assert answers[0].status_code == 200
    assert answers[-1].status_code == 503
    assert "relay.spool_max_bytes" in answers[-1].json()["error"]
    assert "errors" not in answers[-1].json()


async def test_reads_are_asked_to_come_back(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """A query cannot be spooled: 503 with Retry-After."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as client:
        control_plane.stop()
        answer = await client.post("/graphql", json={"query": HAS_RUN, "variables": {}})
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


async def test_reads_wait_out_a_short_absence(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """A control plane that is back within the relay's patience is not missed at all."""
    job = cluster.job(argv=python(WAITING))
    patient = replace(cluster.settings, patience_seconds=30)
    async with cluster.relay(patient), cluster.loopback(job) as client:
        control_plane.status = 503
        pending = asyncio.create_task(
            client.post("/graphql", json={"query": HAS_RUN, "variables": {}})
        )
        await until(lambda: len(control_plane.requests) >= 2)
        control_plane.status = 200
        answer = await pending
    assert answer.status_code == 200


async def _store(client: httpx.AsyncClient, number: int) -> httpx.Response:
    return await client.post(
        "/graphql", json=event(number), headers={"Idempotency-Key": f"key-{number}"}
    )


def _message(body: bytes) -> str:
    return str(json.loads(body)["variables"]["eventRecord"]["userMessage"])
