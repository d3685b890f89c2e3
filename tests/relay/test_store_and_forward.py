"""Event writes while the control plane is away."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from dataclasses import replace

import httpx
import pytest

from hpc_agent.relay.server import Relay

from .fake_control_plane import FakeControlPlane, Reply
from .harness import HAS_RUN, WAITING, Cluster, event, logs_of, python, until


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


async def test_write_that_is_on_its_way_is_one_of_the_run_s(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Its worker may be dead when it arrives: nobody is to have the last word before."""
    job = cluster.job(argv=python(WAITING))
    arrives = threading.Event()
    control_plane.script = lambda _: Reply(hold=arrives)
    async with cluster.relay() as relay, cluster.loopback(job) as client:
        writing = asyncio.create_task(_store(client, 0))
        await until(lambda: relay.holds_events_of("run-id-1"))
        assert relay.spooled == 0
        # A run that executes always writes: whoever follows its steps waits for what hangs alone.
        await until(lambda: relay.stalls_events_of("run-id-1"))
        assert not relay.holds_events_of("run-id-2")
        arrives.set()
        await writing
        assert not relay.holds_events_of("run-id-1")


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
        assert (await relay._spool.count()).set_aside == 1
        control_plane.status = 200
        await _store(client, 1)
    assert list(control_plane.stored) == ["key-1"]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(content=b'{"data": {"userCloudAgent": []}}'),
        Reply(content=b'{"data": null, "errors": [{"message": "database is locked"}]}'),
        Reply(status=500, content=b"Internal Server Error"),
        Reply(content=b"<html>Log in first</html>", headers={"Content-Type": "text/html"}),
        Reply(status=307, headers={"Location": "https://portal.example"}),
        Reply(content=b'{"data": {"eventLo'),
        Reply(cut=True),
        Reply(status=403),
    ],
    ids=["of another call", "error inside", "500", "page", "redirect", "half", "broken off", "403"],
)
async def test_what_is_no_receipt_is_none(
    cluster: Cluster, control_plane: FakeControlPlane, reply: Reply
) -> None:
    """The job goes on, and its event arrives when the control plane takes it, before later ones."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay() as relay, cluster.loopback(job) as client:
        control_plane.script = lambda _received: reply
        answers = [await _store(client, number) for number in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert all(answer.json()["data"]["eventLogs"] for answer in answers)
        assert relay.spooled == 2
        control_plane.script = None
        await until(lambda: relay.spooled == 0)
    assert list(control_plane.stored) == ["key-0", "key-1"]


@pytest.mark.parametrize("pragma", ["max_page_count = 1", "query_only = 1"], ids=["full", "read"])
async def test_a_disk_that_takes_nothing_loses_and_doubles_nothing(
    cluster: Cluster, control_plane: FakeControlPlane, pragma: str
) -> None:
    """The job is asked to come back, and hears that its event is kept when it is."""
    job = cluster.job(argv=python(WAITING))
    key = {"Idempotency-Key": "key-0"}
    big = event(0)
    big["variables"]["eventRecord"]["userMessage"] = "x" * 30_000
    async with cluster.relay() as relay, cluster.loopback(job) as client:
        control_plane.script = lambda _received: Reply(status=503)
        await _pragma(relay, pragma)
        for _ in range(2):
            answer = await client.post("/graphql", json=big, headers=key)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
        assert relay.spooled == 0
        await _pragma(relay, "max_page_count = 100000")
        await _pragma(relay, "query_only = 0")
        answer = await client.post("/graphql", json=big, headers=key)
        assert answer.status_code == 200
        assert relay.spooled == 1
        control_plane.script = None
        await until(lambda: relay.spooled == 0)
    assert list(control_plane.stored) == ["key-0"]


async def test_with_a_disk_that_takes_nothing_events_go_straight_on(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """An absence that nothing waits for is found to be over by the next event."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay() as relay, cluster.loopback(job) as client:
        await _pragma(relay, "query_only = 1")
        control_plane.script = lambda _received: Reply(status=503)
        assert (await _store(client, 0)).status_code == 503
        control_plane.script = None
        assert (await _store(client, 0)).status_code == 200
    assert list(control_plane.stored) == ["key-0"]


async def test_what_is_in_doubt_for_the_stated_time_is_set_aside(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Then the later events of its run go; those of other runs have not waited."""
    job, other = cluster.job(argv=python(WAITING)), cluster.job(2, argv=python(WAITING))
    short = replace(cluster.settings, set_aside_after_seconds=1.0)
    control_plane.script = lambda received: (
        Reply(status=500) if received.headers.get("idempotency-key") == "key-0" else None
    )
    async with cluster.relay(short) as relay, cluster.loopback(job) as client:
        await _store(client, 0)
        await _store(client, 1)
        async with cluster.loopback(other) as neighbour:
            await neighbour.post(
                "/graphql", json=event(2, "run-id-2"), headers={"Idempotency-Key": "key-2"}
            )
        assert list(control_plane.stored) == ["key-2"]
        await until(lambda: relay.spooled == 0)
        assert (await relay._spool.count()).set_aside == 1
    assert list(control_plane.stored) == ["key-2", "key-1"]


async def test_text_that_is_none_is_stored_as_far_as_it_is(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """A file name that is not UTF-8 would be refused for ever, and hold up its run's events."""
    job = cluster.job(argv=python(WAITING))
    request = event(0)
    request["variables"]["eventRecord"] |= {
        "userMessage": "read a\udcff.csv and \U0001f600",
        "dagsterEvent": {"eventSpecificData": json.dumps({"label": "b\ud800 \\\\ud800"})},
    }
    async with cluster.relay(), cluster.loopback(job) as client:
        answer = await client.post(
            "/graphql",
            content=json.dumps(request).encode(),
            headers={b"Idempotency-Key": b"k\xe9y"},
        )
    assert answer.status_code == 200
    (received,) = control_plane.requests
    record = json.loads(received.body)["variables"]["eventRecord"]
    assert record["userMessage"] == "read a\ufffd.csv and \U0001f600"
    assert json.loads(record["dagsterEvent"]["eventSpecificData"])["label"].startswith("b\ufffd ")
    assert received.headers["idempotency-key"] == hashlib.sha256("k\u00e9y".encode()).hexdigest()


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
        answer = await client.post(
            "/graphql", json={"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
        )
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
            client.post("/graphql", json={"query": HAS_RUN, "variables": {"runId": "run-id-1"}})
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


async def _pragma(relay: Relay, words: str) -> None:
    """Let SQLite behave as on a disk that is full or read-only."""
    spool = relay._spool
    await spool._run(lambda: spool._db.execute(f"PRAGMA {words}"))


NO_ANSWERS = [
    Reply(status=500),
    Reply(status=401),
    Reply(status=429),
    Reply(content=b"<html>log in</html>", headers={"Content-Type": "text/html"}),
    Reply(content=b'{"data": {"ok": tr', headers={"Content-Type": "application/json"}),
    Reply(content=b'{"data": {"userCloudAgent": []}}'),
    Reply(content=b'{"data": {"runs": null}}'),
    Reply(content=b'["data"]'),
    Reply(content=b'{"errors": [{"message": "try again"}]}'),
    Reply(
        content=b'{"data": {"runs": {"hasRun": null}}, "errors": [{"message": "database is locked",'
        b' "locations": [{"line": 1, "column": 9}], "path": ["runs", "hasRun"]}]}'
    ),
]


@pytest.mark.parametrize("reply", NO_ANSWERS, ids=lambda reply: f"{reply.status} {reply.content!r}")
async def test_read_waits_for_an_answer_that_is_one(
    cluster: Cluster, control_plane: FakeControlPlane, reply: Reply
) -> None:
    """No run fails since a proxy had a web page for it, or the agent's token was away."""
    job = cluster.job(argv=python(WAITING))
    replies = [reply, reply]
    control_plane.script = lambda _: replies.pop() if replies else None
    async with cluster.relay(), cluster.loopback(job) as client:
        answer = await client.post(
            "/graphql", json={"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
        )
    assert answer.status_code == 200, answer.text
    assert replies == []


NO_ADDRESSES = [
    Reply(content=b'{"data": {"userCloudAgent": []}}'),
    Reply(content=b'{"errors": [{"message": "try again"}]}'),
    Reply(content=b"{}"),
]


@pytest.mark.parametrize("reply", NO_ADDRESSES, ids=lambda reply: str(reply.content))
async def test_address_is_waited_for(
    cluster: Cluster, control_plane: FakeControlPlane, reply: Reply
) -> None:
    """What holds no address would cost the run its log."""
    job = cluster.job(argv=python(WAITING))
    replies = [reply, reply]
    control_plane.script = lambda _: replies.pop() if replies else None
    async with cluster.relay(), cluster.loopback(job) as client:
        answer = await client.get("/gen_logs_url", params=logs_of("run-id-1"))
    assert "/_hpc/upload/" in answer.json()["url"]
    assert replies == []


ADD_TAGS = (
    "mutation M($runId: String!, $tags: JSONString!) "
    "{ runs { addRunTags(runId: $runId, jsonNewTags: $tags) { ok } } }"
)


async def test_mutation_that_nobody_answers_is_asked_to_come_back(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """It is sent once, and 200 with something else in it would be taken for done."""
    job = cluster.job(argv=python(WAITING))
    control_plane.script = lambda _: Reply(content=b'{"data": {"userCloudAgent": []}}')
    body = {"query": ADD_TAGS, "variables": {"runId": "run-id-1", "tags": "{}"}}
    async with cluster.relay(), cluster.loopback(job) as client:
        answer = await client.post("/graphql", json=body)
    assert answer.status_code == 503
    assert len(control_plane.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(content=b'{"errors": [{"message": "no field", "locations": [{"line": 1}]}]}'),
        Reply(status=503, content=b'{"maintenance": {"message": "x", "timeout": 60}}'),
        Reply(content=b'{"maintenance": {"message": "x", "timeout": 60}}'),
    ],
    ids=["not valid", "maintenance", "maintenance as an answer"],
)
async def test_answer_that_no_wait_would_change_is_passed_on(
    cluster: Cluster, control_plane: FakeControlPlane, reply: Reply
) -> None:
    """The stock client knows what to do with it."""
    job = cluster.job(argv=python(WAITING))
    control_plane.script = lambda _: reply
    patient = replace(cluster.settings, patience_seconds=30)
    async with cluster.relay(patient), cluster.loopback(job) as client:
        answer = await client.post(
            "/graphql", json={"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
        )
    assert answer.content == reply.content
    assert answer.status_code == reply.status
    assert len(control_plane.requests) == 1


async def test_errors_that_stay_are_the_answer(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Whoever asked is told them, after a wait."""
    job = cluster.job(argv=python(WAITING))
    control_plane.script = lambda _: Reply(content=b'{"errors": [{"message": "no such shard"}]}')
    hasty = replace(cluster.settings, patience_seconds=0.1)
    async with cluster.relay(hasty), cluster.loopback(job) as client:
        answer = await client.post(
            "/graphql", json={"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
        )
    assert "no such shard" in answer.text
    assert len(control_plane.requests) > 1


async def test_read_that_gets_none_is_asked_to_come_back(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """503 is what the stock client tries again after."""
    job = cluster.job(argv=python(WAITING))
    control_plane.script = lambda _: Reply(status=500)
    hasty = replace(cluster.settings, patience_seconds=0.1)
    async with cluster.relay(hasty), cluster.loopback(job) as client:
        answer = await client.post(
            "/graphql", json={"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
        )
    assert answer.status_code == 503
    assert "HTTP 500" in answer.text
