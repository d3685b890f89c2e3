"""One parked connection of a code server's node program, and the splice it is used for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

PING = b"P"
GO = b"G"
_BLOCK = 1 << 16


class Parked:
    """Waits to be used, pinging meanwhile; the other side answers each ping with the same byte."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        ping_seconds: float,
        on_lost: Callable[[Parked], None],
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._ping_seconds = ping_seconds
        self._on_lost = on_lost
        self._pong_due = False
        self._watch = asyncio.create_task(self._keep_alive(), name="relay parked connection")

    async def go(self) -> bool:
        """Stop waiting and tell the other side to go; False when the connection turns out dead."""
        self._watch.cancel()
        await asyncio.wait([self._watch])
        try:
            if self._pong_due:
                # The answer to our last ping is still under way: it is not the code server's.
                async with asyncio.timeout(5):
                    await self.reader.readexactly(1)
            self.writer.write(GO)
            await self.writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.writer.close()
            return False
        return not self.reader.at_eof()

    async def close(self) -> None:
        """Drop the connection."""
        self._watch.cancel()
        await asyncio.wait([self._watch])
        self.writer.close()

    async def _keep_alive(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            while await self._silent():
                self._pong_due = True
                self.writer.write(PING)
                await self.writer.drain()
                async with asyncio.timeout(self._ping_seconds):
                    answer = await self.reader.read(1)
                if answer != PING:
                    break
                self._pong_due = False
        self.writer.close()
        self._on_lost(self)

    async def _silent(self) -> bool:
        """Wait for a ping's time; False when the other side says or ends anything before."""
        try:
            async with asyncio.timeout(self._ping_seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


async def splice(
    first: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    second: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Pass bytes both ways until either side ends; what it sent before is delivered first."""
    pumps = {
        asyncio.create_task(_pump(first[0], second[1]), name="relay splice in"),
        asyncio.create_task(_pump(second[0], first[1]), name="relay splice out"),
    }
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)
        for writer in (first[1], second[1]):
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_BLOCK):
            writer.write(data)
            await writer.drain()
