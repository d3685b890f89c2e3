"""The webserver behind the door: requests made anew from what was checked, answers streamed."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
from starlette.requests import HTTPConnection

from hpc_agent.control_plane.door.gate import visitor_of
from hpc_agent.control_plane.webserver_socket import BASE_URL, async_client, told_of

TIMEOUT_SECONDS = 300.0
# Neither cookies nor tokens: the webserver has no use for them.
PASSED_ON = frozenset({
    b"accept", b"accept-language", b"content-type", b"if-modified-since", b"if-none-match",
    b"if-range", b"range", b"user-agent",
})  # fmt: skip
# RFC 9110, section 7.6.1, and what our own server says.
KEPT_BACK = frozenset({
    b"connection", b"date", b"keep-alive", b"proxy-connection", b"referrer-policy", b"server",
    b"set-cookie", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"x-content-type-options",
    b"x-frame-options",
})  # fmt: skip


class Upstream:
    """Connections to the webserver's socket; made within the event loop that uses them."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._client = async_client(socket, TIMEOUT_SECONDS)

    @asynccontextmanager
    async def answer(
        self,
        connection: HTTPConnection,
        method: str,
        *,
        path: str,
        query: bytes = b"",
        content: bytes | AsyncIterable[bytes] | None = None,
        content_type: str | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Hold the answer to a request of this visitor. Raises httpx.HTTPError.

        The path goes out as it is: httpx would resolve the dots in it, and the webserver would
        get another path than the one that was judged.
        """
        headers = headers_for(connection)
        if content_type is not None:
            headers[b"content-type"] = content_type.encode()
        target = quote(path).encode() + (b"?" + query if query else b"")
        async with self._client.stream(
            method, BASE_URL, headers=list(headers.items()), content=content,
            extensions={"target": target},
        ) as response:  # fmt: skip
            yield response

    async def close(self) -> None:
        await self._client.aclose()


def headers_for(connection: HTTPConnection) -> dict[bytes, bytes]:
    """Return what the webserver is told of a request: little, and nothing twice."""
    role = visitor_of(connection).role
    headers = {name: value for name, value in connection.headers.raw if name in PASSED_ON}
    return {
        b"accept-encoding": b"identity",
        **headers,
        b"host": connection.headers["Host"].encode("latin-1"),
        b"x-forwarded-proto": b"https",
        **{name.encode(): value.encode() for name, value in told_of(role).items()},
    }


def returned(headers: httpx.Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer that go back to the visitor."""
    return [(name.lower(), value) for name, value in headers.raw if name.lower() not in KEPT_BACK]
