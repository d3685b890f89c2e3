"""Requests of one connection: a body is read of callers alone whom the application vouches for."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpc_agent.inbound.admission import Guest
from hpc_agent.inbound.limits import Limits
from hpc_agent.journal.about import about_nothing
from hpc_agent.seldom import seldom

log = seldom(__name__)

_EXTENSION = "hpc_agent.caller"
_DISCONNECT: Message = {"type": "http.disconnect"}
_CLOSE = (b"connection", b"close")


def vouch(scope: Scope) -> None:
    """Say that the token (or the signed address) of a request is a valid one."""
    caller: _Caller | None = scope.get("extensions", {}).get(_EXTENSION)
    if caller is not None:
        caller.vouch()


def hear(scope: Scope) -> None:
    """Have the body of a request read, whoever it is of: its endpoint bounds it."""
    caller: _Caller | None = scope.get("extensions", {}).get(_EXTENSION)
    if caller is not None:
        caller.is_heard = True


class Callers:
    """ASGI middleware of one connection, around everything else."""

    def __init__(self, app: Any, guest: Guest, limits: Limits) -> None:
        self._app: ASGIApp = app
        self._guest = guest
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; for who is not vouched for it is the last one of the connection."""
        caller = _Caller(self._guest, _Body(receive, self._guest, self._limits))
        scope["extensions"] = {**scope.get("extensions", {}), _EXTENSION: caller}
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if not caller.is_vouched:
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
                elif caller.leaves_a_body(scope) and not message.get("more_body", False):
                    # To close with bytes unread is a reset, which may overtake the answer.
                    await send({**message, "more_body": True})
                    await asyncio.sleep(self._limits.patience_seconds)
                    message = {"type": "http.response.body", "body": b""}
            await send(message)

        with about_nothing():  # the next request of the connection may have begun within this one
            try:
                await self._app(scope, caller.receive, answer)
            except ClientDisconnect:
                log.debug("%s went away before its request was complete", self._guest.peer)


def _announces_a_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


class _Caller:
    """Who has sent one request."""

    def __init__(self, guest: Guest, body: _Body) -> None:
        self._guest = guest
        self._body = body
        self.is_vouched = False
        self.is_heard = False

    def vouch(self) -> None:
        self.is_vouched = True
        self._guest.vouch()

    async def receive(self) -> Message:
        """Return more of the body, which ends here for who is not vouched for."""
        return await self._body.receive() if self.is_vouched or self.is_heard else _DISCONNECT

    def leaves_a_body(self, scope: Scope) -> bool:
        """Whether some of the request is unread when it is answered."""
        return _announces_a_body(scope) and not self._body.is_complete


class _Body:
    """A body that has to come at some rate, while it is us who wait for it."""

    def __init__(self, receive: Receive, guest: Guest, limits: Limits) -> None:
        self._receive = receive
        self._guest = guest
        self._limits = limits
        self._left = limits.body_seconds
        self.is_complete = False

    async def receive(self) -> Message:
        """Return the next part; a peer that takes too long for it is dropped."""
        if self.is_complete:  # the wait is for the peer to go
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._left):
                message = await self._receive()
        except TimeoutError:
            log.warning("connection from %s dropped: a body did not come", self._guest.peer)
            self._guest.abort()
            return _DISCONNECT
        self._left -= time.monotonic() - began
        self._left += len(message.get("body", b"")) / self._limits.body_bytes_per_second
        self.is_complete = not message.get("more_body", False)
        return message
