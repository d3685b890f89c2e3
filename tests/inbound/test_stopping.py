"""A listener that has stopped holds no connection, whatever its peers do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import cast

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from hpc_agent.inbound.admission import Admission
from tests.inbound.door import STREAM, open_door

ANSWERED = b"GET / HTTP/1.1\r\nHost: x\r\nToken: good\r\nConnection: close\r\n\r\n"


async def until_open(admission: Admission, number: int) -> None:
    """Wait a second: much less than until a peer that does not confirm the end is given up."""
    async with asyncio.timeout(1):
        while admission.connections != number:  # noqa: ASYNC110  (the test's own question)
            await asyncio.sleep(0.01)


async def test_answered_peer_that_does_not_confirm_the_end_is_let_go(tmp_path: Path) -> None:
    """It had been closed after the answer, and closing it again put it out of reach."""
    async with open_door(tmp_path, closing_seconds=60.0) as door:
        reader, writer = await door.dial()
        # Nothing more is read of it, the end of TLS neither.
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(ANSWERED)
        await asyncio.sleep(0.3)
        assert door.listener.admission.connections == 1

        await door.listener.stop(1)

        await until_open(door.listener.admission, 0)
        writer.transport.abort()
        del reader


async def test_peers_of_all_kinds_are_let_go(tmp_path: Path) -> None:
    """In the handshake, idle between requests, and with a stream of their own."""
    async with open_door(tmp_path, closing_seconds=60.0) as door:
        silent = await door.plain()
        _, idle = await door.dial()
        _, stream = await door.dial(STREAM)
        stream.write(b"good\n")
        await until_open(door.listener.admission, 3)

        await door.listener.stop(1)

        await until_open(door.listener.admission, 0)
        silent.close()
        for writer in (idle, stream):
            writer.transport.abort()


async def test_request_that_outlasts_the_stop_is_no_exception(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A long poll, for example: nobody has made a mistake."""
    async with open_door(tmp_path) as door:
        _, writer = await door.dial()
        writer.write(ANSWERED.replace(b"/ ", b"/late ", 1))
        async with asyncio.timeout(20):
            while not door.taken:  # noqa: ASYNC110  (the test's own question)
                await asyncio.sleep(0.01)

        await door.listener.stop(0.1)

        await until_open(door.listener.admission, 0)
        writer.transport.abort()
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_websocket_that_is_being_written_to_ends_without_an_exception(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its application learns of the stop when it sends the next message."""
    async with open_door(tmp_path) as door:
        url = door.url.replace("https", "wss") + "/talk"
        async with connect(url, ssl=door.trust(), proxy=None) as websocket:
            await websocket.recv()

            stopping = asyncio.create_task(door.listener.stop(1))

            with contextlib.suppress(ConnectionClosed):
                async for _ in websocket:
                    pass
            await stopping
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
