"""Connections without a token, by the hundred, and what they do to everybody else: nothing."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import socket
import time
from asyncio import sslproto
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.inbound.door import GOOD, STREAM, Door, open_door

ALL = 64 << 20
"""Of this, some megabytes fit into the buffers of the kernel."""

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n"


@asynccontextmanager
async def crowd(door: Door, number: int, source: str = "127.0.0.1") -> AsyncIterator[None]:
    """Connections that say nothing."""
    sockets = [await door.plain(source) for _ in range(number)]
    await asyncio.sleep(0.1)
    try:
        yield
    finally:
        for each in sockets:
            each.close()


async def asks(door: Door, source: str = "127.0.0.1") -> int:
    """Ask with the token; return the status."""
    transport = httpx.AsyncHTTPTransport(verify=door.trust(), local_address=source)
    async with httpx.AsyncClient(transport=transport, base_url=door.url, timeout=10) as client:
        return (await client.post("/", content=b"hello", headers=GOOD)).status_code


async def ended_after(reader: asyncio.StreamReader) -> float:
    """Return the seconds until the other side ends a connection."""
    began = time.monotonic()
    async with asyncio.timeout(20):
        try:
            while await reader.read(4096):
                pass
        except OSError:
            pass
    return time.monotonic() - began


def handshakes() -> int:
    """Return for how many connections TLS has something in memory."""
    return sum(isinstance(each, sslproto.SSLProtocol) for each in gc.get_objects())


async def test_crowd_of_one_address_keeps_nobody_out(tmp_path: Path) -> None:
    """Not even those behind the same address: who waited longest goes."""
    async with (
        open_door(tmp_path, strangers=20, strangers_per_peer=10, patience_seconds=0.05) as door,
        crowd(door, 300),
    ):
        assert door.listener.admission.strangers <= 10
        assert await asks(door) == 200
        assert await asks(door, "127.0.0.2") == 200


async def test_crowd_of_many_addresses_keeps_nobody_out(tmp_path: Path) -> None:
    """It is the address with the most that makes room."""
    async with (
        open_door(tmp_path, strangers=20, strangers_per_peer=10, patience_seconds=0.05) as door,
        AsyncExitStack() as crowds,
    ):
        for number in range(2, 12):
            await crowds.enter_async_context(crowd(door, 10, f"127.0.0.{number}"))
        assert door.listener.admission.strangers <= 20
        assert await asks(door, "127.0.1.1") == 200


async def test_those_who_have_just_come_are_not_put_out(tmp_path: Path) -> None:
    """A thousand jobs that start at once would put out each other; they come back instead."""
    async with open_door(tmp_path, strangers_per_peer=2, patience_seconds=60) as door:
        first, second, third = [await door.plain() for _ in range(3)]
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(third, 1), 5) == b""
        for each in (first, second):
            with pytest.raises(BlockingIOError):
                each.recv(1)
        for each in (first, second, third):
            each.close()


async def test_known_connections_of_one_address_are_no_strangers(tmp_path: Path) -> None:
    """A compute node with many jobs holds many, of HTTP and streams: they have shown tokens."""
    async with open_door(tmp_path, strangers_per_peer=2, patience_seconds=60) as door:
        writers = []
        for _ in range(20):
            reader, writer = await door.dial()
            writer.write(REQUEST + b"Token: good\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writers.append(writer)
        for _ in range(20):
            reader, writer = await door.dial(STREAM)
            writer.write(b"good\n")
            assert await reader.readexactly(1) == b"+"
            writers.append(writer)
        assert door.listener.admission.connections == 40
        assert door.listener.admission.strangers == 0
        for writer in writers:
            writer.transport.abort()


async def test_no_more_than_all_connections_are_held(tmp_path: Path) -> None:
    """The next is closed at once, and there is room again when one has gone."""
    async with open_door(tmp_path, connections=3) as door:
        known = []
        for _ in range(3):
            reader, writer = await door.dial()
            writer.write(REQUEST + b"Token: good\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            known.append(writer)
        with pytest.raises(OSError):
            await door.dial()
        known[0].transport.abort()
        async with asyncio.timeout(10):
            while door.listener.admission.connections == 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await asks(door) == 200
        for writer in known[1:]:
            writer.transport.abort()


async def test_network_that_is_not_allowed_is_refused_before_tls(tmp_path: Path) -> None:
    """Nothing is spent on it."""
    allow = [ipaddress.ip_network("127.0.0.2/32")]
    async with open_door(tmp_path, allow=allow) as door:
        with await door.plain() as refused:
            loop = asyncio.get_running_loop()
            assert await asyncio.wait_for(loop.sock_recv(refused, 1), 5) == b""
        assert door.listener.admission.connections == 0
        assert await asks(door, "127.0.0.2") == 200


async def test_who_says_nothing_within_tls_is_dropped(tmp_path: Path) -> None:
    """A handshake has seconds, however little of it comes how often."""
    async with open_door(tmp_path, handshake_seconds=0.5) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        drip = asyncio.create_task(_drip(writer, b"\x16\x03\x01\x02\x00" + b"\x01" * 500))
        assert await ended_after(reader) < 5
        assert door.listener.admission.connections == 0
        drip.cancel()
        writer.transport.abort()


async def test_headers_that_drip_are_not_waited_for(tmp_path: Path) -> None:
    """However often a byte comes: slow loris."""
    async with open_door(tmp_path, headers_seconds=0.5) as door:
        reader, writer = await door.dial()
        drip = asyncio.create_task(_drip(writer, REQUEST * 100))
        assert await ended_after(reader) < 5
        drip.cancel()
        writer.transport.abort()


async def test_headers_that_drip_into_a_known_connection_are_not_waited_for(tmp_path: Path) -> None:
    """Its next request has the same time as its first."""
    async with open_door(tmp_path, headers_seconds=0.5, idle_seconds=60) as door:
        reader, writer = await door.dial()
        writer.write(REQUEST + b"Token: good\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        drip = asyncio.create_task(_drip(writer, REQUEST * 100))
        assert await ended_after(reader) < 5
        drip.cancel()
        writer.transport.abort()


async def test_rest_of_a_body_that_nobody_wants_is_not_waited_for(tmp_path: Path) -> None:
    """The answer is out, and the sender takes its time."""
    async with open_door(tmp_path, headers_seconds=0.5) as door:
        reader, writer = await door.dial()
        writer.write(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        drip = asyncio.create_task(_drip(writer, b"x" * 9999))
        assert await ended_after(reader) < 5
        drip.cancel()
        writer.transport.abort()


async def test_idle_connection_is_closed(tmp_path: Path) -> None:
    """A known one too, later."""
    async with open_door(tmp_path, idle_seconds=1) as door:
        reader, writer = await door.dial()
        writer.write(REQUEST + b"Token: good\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert 0.5 < await ended_after(reader) < 5
        writer.transport.abort()


async def test_body_that_drips_is_not_waited_for(tmp_path: Path) -> None:
    """Neither by token holders: it has seconds, and more for what has come."""
    async with open_door(tmp_path, body_seconds=0.5, body_bytes_per_second=1000) as door:
        reader, writer = await door.dial()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nToken: good\r\nContent-Length: 9999\r\n\r\n")
        drip = asyncio.create_task(_drip(writer, b"x" * 9999))
        assert await ended_after(reader) < 5
        assert door.taken == []
        drip.cancel()
        writer.transport.abort()


async def test_slow_body_is_taken(tmp_path: Path) -> None:
    """One that keeps the rate may take longer than the seconds."""
    async with open_door(tmp_path, body_seconds=0.5, body_bytes_per_second=1000) as door:
        reader, writer = await door.dial()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nToken: good\r\nContent-Length: 4000\r\n\r\n")
        for _ in range(10):
            writer.write(b"x" * 400)
            await asyncio.sleep(0.1)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert door.taken == [4000]
        writer.transport.abort()


async def test_stranger_gets_its_answer_while_it_still_sends(tmp_path: Path) -> None:
    """An agent whose token was revoked shall say so, and not that the connection broke."""
    async with open_door(tmp_path) as door:
        reader, writer = await door.dial()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n")
        await asyncio.sleep(0.3)
        for _ in range(16):
            writer.write(b"x" * 4096)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
        writer.transport.abort()


@pytest.mark.parametrize("protocol", ["http/1.1", STREAM])
async def test_who_goes_before_the_answer_is_held_by_nobody(tmp_path: Path, protocol: str) -> None:
    """asyncio would wait for ever for somebody to read what has come before the end."""
    async with open_door(tmp_path, closing_seconds=0.5, patience_seconds=0.3) as door:
        for _ in range(5):
            _, writer = await door.dial(protocol)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n")
            writer.write(b"x" * 300_000)
            await writer.drain()
            writer.close()
        async with asyncio.timeout(5):
            while door.listener.admission.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("ending", ["closed", "late", "put out"])
async def test_failed_handshake_leaves_nothing_behind(tmp_path: Path, ending: str) -> None:
    """Not even for the garbage collection: each has a buffer of 256 KiB."""
    async with open_door(
        tmp_path, strangers_per_peer=4, patience_seconds=0.0, handshake_seconds=0.3
    ) as door:
        gc.collect()
        gc.disable()
        try:
            before = handshakes()
            held = [await door.plain() for _ in range(4 if ending != "put out" else 12)]
            await asyncio.sleep(0.1 if ending != "late" else 0.6)
            for each in held:
                each.close()
            await asyncio.sleep(0.3)
            assert door.listener.admission.connections == 0
            assert handshakes() == before
        finally:
            gc.enable()


@pytest.mark.parametrize("path", ["/", "/careless", "/nowhere"])
async def test_no_body_is_read_of_a_stranger(tmp_path: Path, path: str) -> None:
    """Whatever the application tries: the answer comes first, and the connection ends."""
    async with open_door(tmp_path) as door:
        assert await _sent(door, f"POST {path} HTTP/1.1\r\nHost: x\r\n") < ALL // 4
        assert door.taken == []


async def test_known_connection_does_not_vouch_for_its_next_request(tmp_path: Path) -> None:
    """A token counts for the request that it comes with."""
    async with open_door(tmp_path) as door:
        before = "GET / HTTP/1.1\r\nHost: x\r\nToken: good\r\n\r\n"
        assert await _sent(door, f"{before}POST / HTTP/1.1\r\nHost: x\r\n") < ALL // 4
        assert door.taken == [0]


async def test_refusals_are_a_few_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However many connections there are."""
    caplog.set_level(logging.INFO)
    for each in logging.getLogger("hpc_agent.inbound.listener").filters:
        each._told.clear()  # type: ignore[union-attr]  # of other tests
    async with (
        open_door(tmp_path, strangers_per_peer=2, patience_seconds=60) as door,
        crowd(door, 200),
    ):
        for _ in range(20):
            with pytest.raises(OSError):
                await door.dial()
    refused = [record for record in caplog.records if "refused" in record.getMessage()]
    assert 0 < len(refused) <= 3
    assert len(caplog.records) < 20


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def _sent(door: Door, head: str) -> int:
    """Send a request with a large body; return how much of it went out."""
    _, writer = await door.dial()
    writer.write(f"{head}Content-Length: {ALL}\r\n\r\n".encode())
    sent = 0
    try:
        async with asyncio.timeout(10):
            while sent < ALL:
                writer.write(b"x" * (1 << 16))
                await writer.drain()
                sent += 1 << 16
    except (OSError, TimeoutError):
        pass
    writer.transport.abort()
    return sent


def test_dual_stack_peers_are_counted_as_one() -> None:
    """IPv4 through an IPv6 socket is IPv4; of IPv6, who has one address has a whole network."""
    from hpc_agent.inbound.admission import peer_of

    assert peer_of("::ffff:10.0.0.1") == peer_of("10.0.0.1")
    assert peer_of("2001:db8::1") == peer_of("2001:db8::2") != peer_of("2001:db8:0:1::1")
    assert socket.has_ipv6 or peer_of("fe80::1%eth0")
