"""No request body grows beyond its limit, announced or not."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEBIBYTE = 1 << 20
MAX_BODY_BYTES = 256 * MEBIBYTE
MAX_LOG_BYTES = 4096 * MEBIBYTE
"""Compute logs are streamed to disk, everything else is held in memory."""


class BodyLimit:
    """ASGI middleware: answers 413 to a body that is too large."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/uploads/"):
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await self._refuse(scope, receive, send)
            return
        try:
            await self._app(scope, self._counted(receive), send)
        except BodyTooLargeError:
            await self._refuse(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise BodyTooLargeError
            return message

        return receive_counted

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"request body is larger than {self._limit} bytes"
        await JSONResponse({"error": message}, status_code=413)(scope, receive, send)


class BodyTooLargeError(Exception):
    """Raised into the reader of a body that outgrew the limit."""
