"""Request bodies of the loopback proxy: read whole when small, streamed when they are uploads."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from io import BufferedIOBase
from typing import Iterator, List, Optional, Union

CHUNK_BYTES = 1 << 16
MAX_BUFFERED_BYTES = 16 << 20
_MAX_DISCARDED_BYTES = 256 << 20
# Object stores refuse chunked uploads, and `requests` sends small or empty files chunked: a body
# that ends within this size gets a Content-Length.
_PEEK_BYTES = 1 << 20


class BodyTooLarge(Exception):  # noqa: N818
    """The body exceeds MAX_BUFFERED_BYTES."""


class BodyBroken(OSError):  # noqa: N818
    """The child closed its connection, or broke the framing, within a body."""


@dataclass(frozen=True)
class StreamedBody:
    """A body to pass on while it is read; ``length`` None when it is chunked."""

    chunks: Union[bytes, Iterator[bytes]]
    length: Optional[int] = None


def read_body(headers: Message, source: BufferedIOBase) -> bytes:
    """Read a whole body. Raises BodyTooLarge or BodyBroken.

    One that is too large is read to its end all the same, else closing the connection would reset
    it before the sender has read our answer.
    """
    parts: List[bytes] = []
    size = 0
    for chunk in _chunks(headers, source):
        size += len(chunk)
        if size <= MAX_BUFFERED_BYTES:
            parts.append(chunk)
        elif size > _MAX_DISCARDED_BYTES:
            break
        else:
            parts.clear()
    if size > MAX_BUFFERED_BYTES:
        raise BodyTooLarge
    return b"".join(parts)


def stream_body(headers: Message, source: BufferedIOBase) -> StreamedBody:
    """Open a body for passing on in pieces of CHUNK_BYTES. Raises BodyBroken."""
    if not _is_chunked(headers):
        length = _content_length(headers)
        return StreamedBody(_chunks(headers, source), length) if length else StreamedBody(b"")
    chunks = _chunks(headers, source)
    head: List[bytes] = []
    for chunk in chunks:
        head.append(chunk)
        if sum(map(len, head)) >= _PEEK_BYTES:
            return StreamedBody(_chain(head, chunks))
    return StreamedBody(b"".join(head))


def _chain(head: List[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    yield b"".join(head)
    yield from rest


def _chunks(headers: Message, source: BufferedIOBase) -> Iterator[bytes]:
    if _is_chunked(headers):
        return _decode_chunked(source)
    return _read_exactly(source, _content_length(headers))


def _read_exactly(source: BufferedIOBase, length: int) -> Iterator[bytes]:
    while length > 0:
        data = source.read(min(length, CHUNK_BYTES))
        if not data:
            raise BodyBroken("the request body ended early")
        length -= len(data)
        yield data


def _decode_chunked(source: BufferedIOBase) -> Iterator[bytes]:
    """Decode chunked transfer coding (RFC 9112, section 7.1); trailers are dropped."""
    while True:
        size_line = source.readline(1024)
        try:
            size = int(size_line.split(b";", 1)[0].strip(), 16)
        except ValueError:
            raise BodyBroken("bad chunk size in the request body") from None
        if size == 0:
            break
        yield from _read_exactly(source, size)
        source.readline(3)
    while source.readline(1 << 16) not in (b"\r\n", b"\n", b""):
        pass


def _is_chunked(headers: Message) -> bool:
    return "chunked" in (headers.get("Transfer-Encoding") or "").lower()


def _content_length(headers: Message) -> int:
    value = (headers.get("Content-Length") or "0").strip()
    if not value.isdigit():
        raise BodyBroken("bad Content-Length")
    return int(value)
