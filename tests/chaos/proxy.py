"""A reverse proxy between agent and control plane: the place where calls are lost, and seen."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.http import HEAD_BYTES, Call, Reply, read_call, read_reply


class CutError(Exception):
    """The connection breaks off here."""


class Rule:
    """What happens to calls; as it stands, nothing does."""

    async def before(self, call: Call) -> Reply | None:
        """See a call before it is passed on; an answer is given in the control plane's place."""

    async def after(self, call: Call, reply: Reply) -> Reply:
        """See an answer before it is passed on."""
        return reply

    async def sent(self, call: Call, reply: Reply) -> None:
        """See an answer once its last byte is on the way."""


class Proxy:
    """Has the control plane's own certificate, and passes on what its rule lets through."""

    def __init__(self, tls: Path, port: int = 0) -> None:
        """``tls`` holds server.pem, server.key and ca.pem of the control plane."""
        self.rule = Rule()
        self.url = ""
        self._wanted = port
        self._upstream = ("127.0.0.1", 0)
        self._server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._server_side.load_cert_chain(tls / "server.pem", tls / "server.key")
        self._client_side = ssl.create_default_context(cafile=str(tls / "ca.pem"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self, upstream: str) -> None:
        """Listen, and pass on to this address."""
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "127.0.0.1", address.port or 443)
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        self.url = f"https://127.0.0.1:{port}"

    def close(self) -> None:
        """Break all connections and end."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    @contextlib.contextmanager
    def ruled(self, rule: Rule) -> Iterator[None]:
        """Let a rule hold for a while."""
        before, self.rule = self.rule, rule
        try:
            yield
        finally:
            self.rule = before

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._wanted, ssl=self._server_side, limit=HEAD_BYTES
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (call := await read_call(reader)) is not None:
                await self._answer(call, reader, writer)
        except (CutError, OSError, asyncio.IncompleteReadError, ValueError):
            pass  # for whoever called, the connection is broken
        except asyncio.CancelledError:
            pass  # asyncio.streams would report it: this task is nobody's but its own
        finally:
            writer.transport.abort()

    async def _answer(
        self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # The rule of the moment each time: a poll may have been waiting since before it was set.
        reply = await self.rule.before(call)
        if reply is None:
            reply = await self._pass_on(call, reader)
        reply = await self.rule.after(call, reply)
        writer.write(reply.encode())
        await writer.drain()
        await self.rule.sent(call, reply)
        if reply.cut is not None:
            raise CutError

    async def _pass_on(self, call: Call, reader: asyncio.StreamReader) -> Reply:
        """Ask the control plane, as long as the caller is there to hear the answer."""
        asking = asyncio.create_task(self._ask(call))
        leaving = asyncio.create_task(_left(reader))
        try:
            await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise CutError
            return asking.result()
        finally:
            for task in (asking, leaving):
                task.cancel()
            await asyncio.gather(asking, leaving, return_exceptions=True)

    async def _ask(self, call: Call) -> Reply:
        reader, writer = await asyncio.open_connection(
            *self._upstream, ssl=self._client_side, limit=HEAD_BYTES
        )
        try:
            writer.write(call.encode())
            await writer.drain()
            return await read_reply(reader)
        finally:
            writer.transport.abort()


async def _left(reader: asyncio.StreamReader) -> None:
    """Return when the caller has hung up; nobody sends a second request before the answer."""
    while not (reader.at_eof() or reader.exception()):  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.1)
