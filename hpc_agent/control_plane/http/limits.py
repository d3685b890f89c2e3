"""No request body grows beyond its limit, announced or not."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEBIBYTE = 1 << 20
MAX_BODY_BYTES = 128 * MEBIBYTE
MAX_GRAPHQL_BYTES = 64 * MEBIBYTE
"""An agent sends a heartbeat without messages when it hears that the one before was too large."""

MAX_LOG_BYTES = 4096 * MEBIBYTE
"""Compute logs are streamed to disk, everything else is held in memory."""


def agent_api_limit(path: str) -> int | None:
    """Return how large a body may be; None where the endpoint sees to it."""
    if path.startswith("/uploads/"):
        return None
    return MAX_GRAPHQL_BYTES if path == "/graphql" else MAX_BODY_BYTES


class BodyLimit:
    """ASGI middleware: answers 413 to a body that is too large."""

    def __init__(self, app: ASGIApp, limit_of: Callable[[str], int | None]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limit_of(scope["path"]) if scope["type"] == "http" else None
        if limit is None:
            await self._app(scope, receive, send)
            return
        refusal = JSONResponse(
            {"error": f"request body is larger than {limit} bytes"}, status_code=413
        )
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, _counted(receive, limit), send)
        except BodyTooLargeError:
            await refusal(scope, receive, send)


def _counted(receive: Receive, limit: int) -> Receive:
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise BodyTooLargeError
        return message

    return receive_counted


class BodyTooLargeError(Exception):
    """Raised into the reader of a body that outgrew the limit."""
