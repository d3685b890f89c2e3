"""Request bodies as the loopback proxy reads them."""

from __future__ import annotations

from email.message import Message
from io import BufferedReader, BytesIO

import pytest

from hpc_agent.node.bodies import (
    MAX_BUFFERED_BYTES,
    BodyBroken,
    BodyTooLarge,
    read_body,
    stream_body,
)


def headers(**values: str) -> Message:
    message = Message()
    for name, value in values.items():
        message[name.replace("_", "-")] = value
    return message


def source(content: bytes) -> BufferedReader:
    return BufferedReader(BytesIO(content))


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\nT: x\r\n\r\nrest"


def test_a_body_ends_where_its_length_says() -> None:
    """What follows belongs to the next request."""
    content = source(b"hellonext")
    assert read_body(headers(Content_Length="5"), content) == b"hello"
    assert content.read() == b"next"


def test_a_chunked_body_is_decoded_to_its_end() -> None:
    """Chunk extensions and trailers are dropped; the next request is left alone."""
    content = source(chunked(b"hel", b"lo"))
    assert read_body(headers(Transfer_Encoding="chunked"), content) == b"hello"
    assert content.read() == b"rest"


def test_no_length_means_no_body() -> None:
    """A GET has none."""
    assert read_body(headers(), source(b"next")) == b""


@pytest.mark.parametrize(
    ("given", "content"),
    [
        (headers(Content_Length="9"), b"short"),
        (headers(Content_Length="-1"), b""),
        (headers(Content_Length="five"), b""),
        (headers(Transfer_Encoding="chunked"), b"zz\r\n"),
        (headers(Transfer_Encoding="chunked"), b""),
        (headers(Transfer_Encoding="chunked"), b"5\r\nhel"),
    ],
)
def test_broken_bodies_are_refused(given: Message, content: bytes) -> None:
    """Never pass on half a body as if it were whole."""
    with pytest.raises(BodyBroken):
        read_body(given, source(content))


def test_large_bodies_are_not_held_in_memory() -> None:
    """Beyond the limit a buffered body is refused, announced or not."""
    with pytest.raises(BodyTooLarge):
        length = MAX_BUFFERED_BYTES + 1
        read_body(headers(Content_Length=str(length)), source(bytes(length)))
    block = bytes(1 << 20)
    with pytest.raises(BodyTooLarge):
        read_body(headers(Transfer_Encoding="chunked"), source(chunked(*[block] * 17)))


def test_small_chunked_uploads_get_a_length() -> None:
    """Larger ones stay chunked, whole."""
    small = stream_body(headers(Transfer_Encoding="chunked"), source(chunked(b"hel", b"lo")))
    assert small.chunks == b"hello"
    large = stream_body(
        headers(Transfer_Encoding="chunked"), source(chunked(*[bytes(1 << 19)] * 6))
    )
    assert large.length is None
    assert not isinstance(large.chunks, bytes)
    assert sum(map(len, large.chunks)) == 6 << 19
