"""HTTP/1.1 messages as they go over a connection, read whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

HEAD_BYTES = 1 << 18
Headers = Sequence[tuple[str, str]]


class Kind(Enum):
    """What a call of the agent API is about."""

    POLL = "poll"
    ANSWER = "answer"
    EVENT = "event"
    LOG = "log"
    HEARTBEAT = "heartbeat"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request of the agent, or of a run worker through its relay."""

    method: str
    target: str
    headers: Headers
    body: bytes

    @property
    def kind(self) -> Kind:
        """What it is about, as far as can be seen from outside."""
        if self.target.startswith("/upload_api_response"):
            return Kind.ANSWER
        if self.target.startswith("/store_events"):
            return Kind.EVENT
        if self.target.startswith(("/uploads/", "/gen_logs_url")):
            return Kind.LOG
        for text, kind in _OPERATIONS.items():
            if text in self.body:
                return kind
        return Kind.OTHER

    def encode(self) -> bytes:
        """Return it as it goes to the control plane, on a connection of its own."""
        kept = [(n, v) for n, v in self.headers if n.lower() not in _HOP_BY_HOP]
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{n}: {v}" for n, v in kept)]
        lines += [f"Content-Length: {len(self.body)}", "Connection: close", "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer; what is ``cut`` ends after so many bytes of the body and with the connection."""

    status: int
    headers: Headers = (("Content-Type", "application/json"),)
    body: bytes = b""
    cut: int | None = None

    @property
    def has_launch(self) -> bool:
        """Whether a poll has brought a run to launch."""
        return b"LAUNCH_RUN" in self.body

    def encode(self) -> bytes:
        """Return it as it goes to the agent."""
        kept = [(n, v) for n, v in self.headers if n.lower() not in _HOP_BY_HOP]
        lines = [f"HTTP/1.1 {self.status} chaos", *(f"{n}: {v}" for n, v in kept)]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body[: self.cut]


_HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive"}
_OPERATIONS = {
    b"popUserCloudAgentRequests": Kind.POLL,
    b"StoreEvent": Kind.EVENT,
    b"storeEvent": Kind.EVENT,
    b"eartbeat": Kind.HEARTBEAT,
}


async def read_call(reader: asyncio.StreamReader) -> Call | None:
    """Return the next request of a connection, None when there is none."""
    try:
        first, headers = await _read_head(reader)
    except asyncio.IncompleteReadError:
        return None
    method, target, _ = first.split(" ", 2)
    body = await _read_body(reader, headers, until_end=False)
    return Call(method=method, target=target, headers=headers, body=body)


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Return the answer on a connection. Raises IncompleteReadError when it breaks off."""
    first, headers = await _read_head(reader)
    body = await _read_body(reader, headers, until_end=True)
    return Reply(status=int(first.split(" ", 2)[1]), headers=headers, body=body)


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, Headers]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return first, [(name, value.strip()) for name, _, value in pairs]


async def _read_body(reader: asyncio.StreamReader, headers: Headers, *, until_end: bool) -> bytes:
    named = {name.lower(): value for name, value in headers}
    if "chunked" in named.get("transfer-encoding", ""):
        return await _read_chunks(reader)
    if "content-length" in named:
        return await reader.readexactly(int(named["content-length"]))
    return await reader.read() if until_end else b""


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return bytes(body)
