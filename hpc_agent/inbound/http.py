"""HTTP of one connection: whoever is to speak has a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from hpc_agent.inbound.admission import Guest
from hpc_agent.inbound.callers import Callers
from hpc_agent.inbound.limits import Limits
from hpc_agent.seldom import seldom

# Of uvicorn's lines, peers cause the warnings ("Invalid HTTP request received.").
log = seldom(__name__)

Upgrade = Callable[..., asyncio.Protocol]
"""Makes what speaks websockets, see websocket.py."""


class HttpConnection(H11Protocol):
    """uvicorn's protocol, which waits without an end for headers, and reads bodies unasked."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        guest: Guest,
        limits: Limits,
        upgrade: Upgrade | None = None,
    ) -> None:
        super().__init__(config, state, {})
        if upgrade is not None:
            self.ws_protocol_class = partial(upgrade, guest=guest, limits=limits)  # type: ignore[assignment]  # is called
        self._is_upgraded = False
        self.logger = log
        self.app = Callers(_Dated(self.app), guest, limits)
        self._guest = guest
        self._headers_seconds = limits.headers_seconds
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Take what has come; more of a body is read when the application asks for it."""
        super().data_received(data)
        if self._is_upgraded:
            return
        if not self._is_answering:
            self._wait_for_headers()
        elif self.cycle.more_body:
            self.flow.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the guest go."""
        self._stop_waiting()
        super().connection_lost(exc)
        self._guest.leave()

    def handle_events(self) -> None:
        """Act on what has come; a request that has begun ends the wait for its headers."""
        super().handle_events()
        if self._is_answering:
            self._stop_waiting()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over."""
        self._stop_waiting()
        self._is_upgraded = True
        super().handle_websocket_upgrade(event)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_headers(self) -> None:
        """Give the peer its time once, however it spreads its bytes over it."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._headers_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        log.warning("connection from %s dropped: its request did not come", self._guest.peer)
        self.transport.abort()


class _Dated:
    """ASGI middleware: each answer says when it was made, and agents know our clock by that.

    uvicorn takes the time when the request came, which for a long poll is half a minute earlier.
    """

    def __init__(self, app: Any) -> None:
        self._app: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = _date(int(time.time()))
                message = {**message, "headers": [*message.get("headers", ()), date]}
            await send(message)

        await self._app(scope, receive, dated)


@lru_cache(1)
def _date(second: int) -> tuple[bytes, bytes]:
    return (b"date", formatdate(second, usegmt=True).encode())
