"""What goes out: in order, until it is taken, once; and what does not go holds up nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from hpc_agent.errors import StoreError
from hpc_agent.outgoing.queue import Counts
from tests.outgoing.sides import Side, change, stored, stream_of
from tests.relay.fake_control_plane import FakeControlPlane, Received, Reply

HTML = b"<!DOCTYPE html><html><body>Please log in to use this network.</body></html>"
GRAPHQL_ERROR = b'{"data": null, "errors": [{"message": "disk full"}]}'

NO_WORD_ABOUT_THE_MESSAGE = {
    "401": Reply(status=401),
    "403": Reply(status=403),
    "408": Reply(status=408),
    "409": Reply(status=409),
    "425": Reply(status=425),
    "429": Reply(status=429),
    "502": Reply(status=502),
    "503": Reply(status=503),
    "504": Reply(status=504),
    "520": Reply(status=520),
    "moved": Reply(status=302, headers={"Location": "https://portal.example"}),
    "moved for ever": Reply(status=308),
    "login page": Reply(content=HTML, headers={"Content-Type": "text/html"}),
    "page without its type": Reply(content=HTML),
    "maintenance": Reply(content=b'{"maintenance": {"message": "back at noon"}}'),
    "maintenance as a refusal": Reply(status=400, content=b'{"maintenance": {"message": "x"}}'),
    "broken off": Reply(cut=True),
}
IN_DOUBT = {
    "500": Reply(status=500),
    "error inside": Reply(content=GRAPHQL_ERROR),
    "error beside data": Reply(content=b'{"data": {"a": {"ok": true}}, "errors": [{}]}'),
    "not ok": Reply(content=b'{"data": {"eventLogs": {"StoreEvent": {"ok": false}}}}'),
    "nothing done": Reply(content=b'{"data": {"eventLogs": null}}'),
    "of another call": Reply(content=b'{"data": {"userCloudAgent": []}}'),
    "of another mutation": Reply(
        content=b'{"data": {"eventLogs": {"DeleteEvents": {"ok": true}}}}'
    ),
    "done, but what": Reply(content=b'{"data": {"ok": true}}'),
    "no data": Reply(content=b"{}"),
    "half of it": Reply(content=b'{"data": {"eventLogs": {"St'),
    "empty": Reply(content=b""),
    "no JSON": Reply(content=b"OK"),
    "not an object": Reply(content=b"[]"),
    "no such page of a balancer": Reply(status=404, content=b"default backend - 404"),
}
DOUBTED_WHEN_OTHERS_GO = {
    "broken off": Reply(cut=True),
    "forbidden by a firewall": Reply(
        status=403, content=HTML, headers={"Content-Type": "text/html"}
    ),
    "not authorized by a proxy": Reply(status=401, content=b""),
}
REFUSED = {str(status): Reply(status=status) for status in (400, 404, 410, 413, 414, 422, 431)}


def for_stream(name: str, reply: Reply) -> Callable[[Received], Reply | None]:
    """Answer one stream so, and all others well."""
    return lambda received: reply if stream_of(received) == name else None


async def drain(side: Side, *, attempts: int = 1) -> None:
    """Send what is due, then what is due after the longest pause, and so on."""
    for _ in range(attempts):
        await side.drain.until_idle()
        side.clock.ahead += 31.0


async def test_a_stream_keeps_its_order(side: Side, control_plane: FakeControlPlane) -> None:
    """Streams do not wait for each other; within one nothing overtakes."""
    for number in range(20):
        await side.put("a", number)
        await side.put("b", number)
    await side.drain.until_idle()
    assert stored(control_plane, "a") == stored(control_plane, "b") == list(range(20))
    assert await side.queue.count() == Counts(0, 0)


async def test_streams_are_sent_side_by_side(side: Side, control_plane: FakeControlPlane) -> None:
    """One stream whose answer does not come holds up no other, those of later messages included."""
    answer = threading.Event()
    control_plane.script = for_stream("slow", Reply(hold=answer))
    await side.put("slow", 0)
    draining = asyncio.create_task(side.drain.until_idle())
    async with asyncio.timeout(20):
        while not control_plane.requests:  # noqa: ASYNC110 - a request of another thread
            await asyncio.sleep(0.01)
        for number in range(20):
            await side.put("quick", number)
        while len(control_plane.stored) < 20:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
    answer.set()
    await draining
    assert stored(control_plane, "quick") == list(range(20))


@pytest.mark.parametrize("name", NO_WORD_ABOUT_THE_MESSAGE)
async def test_what_says_nothing_about_a_message_lets_it_wait(
    side: Side, control_plane: FakeControlPlane, name: str
) -> None:
    """For a day as well as for a second, and it goes under the same key."""
    reply = NO_WORD_ABOUT_THE_MESSAGE[name]
    control_plane.script = lambda _received: reply
    await side.put("a", 0)
    await drain(side, attempts=3)
    side.clock.ahead += 24 * 3600
    await drain(side, attempts=2)
    assert len(control_plane.requests) == 5
    assert await side.queue.count() == Counts(1, 0)
    control_plane.script = None
    await side.drain.until_idle()
    assert list(control_plane.stored) == ["a-0"]


@pytest.mark.parametrize("name", IN_DOUBT)
async def test_what_may_pass_is_tried_for_the_stated_time(
    side: Side, control_plane: FakeControlPlane, name: str
) -> None:
    """Not for a number of attempts; then the message is set aside, and later ones go."""
    reply = IN_DOUBT[name]
    control_plane.script = lambda received: reply if len(control_plane.stored) < 1 else None
    await side.put("a", 0)
    await side.put("a", 1)
    await drain(side, attempts=100)  # at 31 s each: less than an hour
    assert await side.queue.count() == Counts(2, 0)
    control_plane.script = lambda received: reply if "a-0" in str(received.headers) else None
    await drain(side, attempts=20)
    assert await side.queue.count() == Counts(0, 1)
    assert list(control_plane.stored) == ["a-1"]
    assert len(side.said) == 1


async def test_a_passing_error_loses_nothing(side: Side, control_plane: FakeControlPlane) -> None:
    """An error inside a GraphQL answer is no refusal."""
    control_plane.script = lambda _received: Reply(content=GRAPHQL_ERROR)
    for number in range(3):
        await side.put("a", number)
    await drain(side, attempts=5)
    control_plane.script = None
    await side.drain.until_idle()
    assert stored(control_plane, "a") == [0, 1, 2]


async def test_absence_does_not_use_up_the_stated_time(
    side: Side, control_plane: FakeControlPlane
) -> None:
    """Only what lies between two doubtful answers counts."""
    await side.put("a", 0)
    for _ in range(5):
        control_plane.script = lambda _received: Reply(status=500)
        await drain(side)
        control_plane.script = lambda _received: Reply(status=503)
        side.clock.ahead += 3600
        await drain(side)
    assert await side.queue.count() == Counts(1, 0)


async def test_the_stated_time_outlives_the_process(
    side: Side, control_plane: FakeControlPlane
) -> None:
    """What was counted before a restart is not counted again, and the time between not at all."""
    control_plane.script = lambda _received: Reply(status=500)
    await side.put("a", 0)
    await drain(side, attempts=60)  # half an hour
    await side.close()
    await side.open()
    side.clock.ahead += 24 * 3600
    await drain(side, attempts=40)
    assert await side.queue.count() == Counts(1, 0)
    await drain(side, attempts=30)
    assert await side.queue.count() == Counts(0, 1)


@pytest.mark.parametrize("name", REFUSED)
async def test_a_definite_refusal_is_set_aside(
    side: Side, control_plane: FakeControlPlane, name: str
) -> None:
    """At once and with its reason; later messages of the stream go."""
    reply = REFUSED[name]
    control_plane.script = lambda received: reply if "a-0" in str(received.headers) else None
    await side.put("a", 0)
    await side.put("a", 1)
    await side.drain.until_idle()
    assert len(control_plane.requests) == 2
    assert await side.queue.count() == Counts(0, 1)
    assert list(control_plane.stored) == ["a-1"]
    assert f"HTTP {name}" in side.said[0]


async def test_one_bad_stream_holds_up_no_other(
    side: Side, control_plane: FakeControlPlane
) -> None:
    """However many messages it has, and however often it fails."""
    control_plane.script = for_stream("bad", Reply(status=500))
    for number in range(300):
        await side.put("bad", number)
    for number in range(5):
        await side.drain.until_idle()
        await side.put("good", number)
        await side.drain.until_idle()
        assert stored(control_plane, "good") == list(range(number + 1))


async def test_an_absent_control_plane_is_not_run_over(
    side: Side, control_plane: FakeControlPlane
) -> None:
    """Many streams wait: one message at a time is tried, until one gets through."""
    control_plane.script = lambda _received: Reply(status=503)
    for number in range(100):
        await side.put(f"run {number}", 0)
    await side.drain.until_idle()
    assert len(control_plane.requests) <= 16
    before = len(control_plane.requests)
    await drain(side, attempts=2)
    assert len(control_plane.requests) <= before + 2
    assert side.drain.is_away
    control_plane.script = None
    await drain(side, attempts=2)
    assert len(control_plane.stored) == 100
    assert not side.drain.is_away


@pytest.mark.parametrize("name", DOUBTED_WHEN_OTHERS_GO)
async def test_a_message_that_alone_does_not_get_through_is_given_up(
    side: Side, control_plane: FakeControlPlane, name: str
) -> None:
    """It may be its own fault when others go; while nothing goes, that is an absence."""
    reply = DOUBTED_WHEN_OTHERS_GO[name]
    control_plane.script = lambda _received: reply
    await side.put("bad", 0)
    await side.put("bad", 1)
    await side.put("good", 0)
    await drain(side, attempts=150)
    assert await side.queue.count() == Counts(3, 0)
    control_plane.script = lambda received: reply if "bad-0" in str(received.headers) else None
    for number in range(1, 130):
        await side.drain.until_idle()
        await side.put("good", number)
        await drain(side)
    assert await side.queue.count() == Counts(0, 1)
    assert stored(control_plane, "bad") == [1]
    assert stored(control_plane, "good") == list(range(130))


@pytest.mark.parametrize("status", [401, 403])
async def test_a_message_that_the_control_plane_forbids_waits(
    side: Side, control_plane: FakeControlPlane, status: int
) -> None:
    """In its own words that is about the token, also when those of another deployment go."""
    forbidden = Reply(status=status, content=b'{"error": "no such token"}')
    control_plane.script = for_stream("bad", forbidden)
    await side.put("bad", 0)
    for number in range(130):
        await side.put("good", number)
        await drain(side)
    assert await side.queue.count() == Counts(1, 0)


async def test_retry_after_is_kept(side: Side, control_plane: FakeControlPlane) -> None:
    """Who is asked to come back in two minutes does not come sooner, whatever the news."""
    control_plane.script = lambda _received: Reply(status=429, headers={"Retry-After": "120"})
    await side.put("a", 0)
    await drain(side, attempts=5)
    assert len(control_plane.requests) == 2


async def test_news_cut_a_pause_short(side: Side, control_plane: FakeControlPlane) -> None:
    """When something says that the control plane is back, nobody waits for half a minute."""
    control_plane.script = lambda _received: Reply(status=503)
    await side.put("a", 0)
    await drain(side, attempts=8)
    await side.drain.until_idle()
    control_plane.script = None
    await side.drain.until_idle()  # earlier than it asked for: that is news
    side.clock.ahead += 2.1
    await side.drain.until_idle()
    assert stored(control_plane, "a") == [0]


async def test_a_send_has_a_deadline(side: Side, control_plane: FakeControlPlane) -> None:
    """An answer that never comes leaves the message where it is, and its stream goes on later."""
    await side.close()
    side.deadline_seconds = 0.3
    await side.open()
    answer = threading.Event()
    control_plane.script = lambda _received: Reply(hold=answer)
    await side.put("a", 0)
    async with asyncio.timeout(10):
        await side.drain.until_idle()
    assert await side.queue.count() == Counts(1, 0)
    answer.set()
    control_plane.script = None
    await drain(side, attempts=2)
    assert stored(control_plane, "a") == [0]


async def test_order_holds_over_restarts(side: Side, control_plane: FakeControlPlane) -> None:
    """What was put before a restart goes before what is put after it."""
    control_plane.script = lambda _received: Reply(status=503)
    for number in range(3):
        await side.put("a", number)
    await side.drain.until_idle()
    await side.close()
    await side.open()
    for number in range(3, 6):
        await side.put("a", number)
    control_plane.script = None
    await side.drain.until_idle()
    assert stored(control_plane, "a") == list(range(6))
    assert list(control_plane.stored) == [f"a-{number}" for number in range(6)]


@pytest.mark.parametrize("damage", ["x'ff'", "x'7b'"])
async def test_a_damaged_row_holds_up_nothing(
    side: Side, control_plane: FakeControlPlane, damage: str
) -> None:
    """A message that cannot be read is set aside; the rest of its stream goes."""
    column = "payload" if side.table == "outbox" else "headers"
    for number in range(2):
        await side.put("a", number)
    change(side, f"UPDATE {side.table} SET {column} = CAST({damage} AS TEXT) WHERE id = 1")  # noqa: S608
    await side.drain.until_idle()
    assert await side.queue.count() == Counts(0, 1)
    assert stored(control_plane, "a") == [1]


async def test_a_read_only_store_doubles_nothing(
    side: Side, control_plane: FakeControlPlane
) -> None:
    """What is sent and cannot be crossed out is not sent again by this process."""
    await side.put("a", 0)
    await side.put("b", 0)
    change(side, f"CREATE TRIGGER no BEFORE DELETE ON {side.table} {_FULL}")
    await drain(side, attempts=5)
    assert len(control_plane.requests) == 2
    assert await side.queue.count() == Counts(2, 0)
    change(side, "DROP TRIGGER no")
    await drain(side, attempts=2)
    assert len(control_plane.requests) == 2
    assert await side.queue.count() == Counts(0, 0)


async def test_a_locked_store_ends_nothing(side: Side, control_plane: FakeControlPlane) -> None:
    """A queue that cannot be read is looked at again, and told of once."""
    await side.put("a", 0)
    change(side, f"ALTER TABLE {side.table} RENAME TO away")
    await drain(side, attempts=3)
    change(side, f"ALTER TABLE away RENAME TO {side.table}")
    await drain(side)
    assert stored(control_plane, "a") == [0]


async def test_a_message_that_is_gone_is_not_sent(
    side: Side, control_plane: FakeControlPlane
) -> None:
    """`hpc-agent outgoing drop` works beside a running agent; ids that come again are no matter."""
    answer = threading.Event()
    control_plane.script = lambda received: (
        Reply(hold=answer) if "a-0" in str(received.headers) else None
    )
    await side.put("a", 0)
    draining = asyncio.create_task(side.drain.until_idle())
    async with asyncio.timeout(20):
        while not control_plane.requests:  # noqa: ASYNC110 - a request of another thread
            await asyncio.sleep(0.01)
    change(side, f"DELETE FROM {side.table}")  # noqa: S608
    await side.put("a", 1)  # gets the same id
    answer.set()
    await draining
    assert stored(control_plane, "a") == [1]
    assert await side.queue.count() == Counts(0, 0)


async def test_set_aside_is_bounded(
    side: Side, control_plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody looks at does not fill the disk: the oldest go first."""
    monkeypatch.setattr("hpc_agent.outgoing.table.SET_ASIDE_KEPT", 3)
    control_plane.script = lambda _received: Reply(status=400)
    for number in range(6):
        await side.put("a", number)
    await side.drain.until_idle()
    assert await side.queue.count() == Counts(0, 3)


async def test_a_store_that_refuses_raises(side: Side) -> None:
    """Whoever puts something in hears that it is not there."""
    change(side, f"CREATE TRIGGER no BEFORE INSERT ON {side.table} {_FULL}")
    with pytest.raises(StoreError):
        await side.put("a", 0)
    assert await side.queue.count() == Counts(0, 0)


_FULL = "BEGIN SELECT raise(ABORT, 'database or disk is full'); END"
