"""HTTP as we speak it with a control plane that may not be what it was: one way for all clients.

An answer is bounded in bytes, after it is unpacked, and in time from the first byte to the last:
httpx bounds neither, it waits for each part anew, and unpacks a megabyte to a gigabyte at once.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

# As much as a poll may bring: requests are a few kilobytes each.
ANSWER_BYTES = 64 << 20
# What a slow line may take for a body, beside the deadline of a small call.
BYTES_A_SECOND = 100_000
_UNPACKED = frozenset({"", "identity"})
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
# zlib.decompressobj: 32 takes the headers of both gzip and zlib.
_ANY_HEADER = zlib.MAX_WBITS | 32
# They are of the body as it came.
_OF_THE_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def http_client(
    *,
    base_url: str = "",
    trust: ssl.SSLContext | bool = True,
    proxy: str | None = None,
    connections: int,
    kept: int,
    timeout_seconds: float = 60.0,
    headers: Mapping[str, str] | None = None,
) -> httpx.AsyncClient:
    """Return a client that follows no redirect and keeps no cookie."""
    return httpx.AsyncClient(
        base_url=base_url,
        verify=trust,
        proxy=proxy,
        timeout=timeout_seconds,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"Accept-Encoding": "gzip", **(headers or {})},
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=kept),
    )


async def whole_answer(
    client: httpx.AsyncClient,
    request: httpx.Request,
    *,
    seconds: float,
    most_bytes: int = ANSWER_BYTES,
) -> httpx.Response:
    """Send a request and return its answer, read and unpacked; ``seconds`` is for all of it.

    Raises httpx.HTTPError.
    """
    try:
        async with asyncio.timeout(seconds):
            answer = await client.send(request, stream=True)
            try:
                return await read_whole(answer, most_bytes=most_bytes)
            finally:
                await answer.aclose()
    except TimeoutError:
        words = f"no whole answer within {seconds:.0f} s"
        raise httpx.ReadTimeout(words, request=request) from None


async def read_whole(answer: httpx.Response, *, most_bytes: int) -> httpx.Response:
    """Read an answer and return it unpacked; its text is UTF-8, whatever its header says of that.

    Python knows encodings that unpack as well (``charset=zlib``). Raises httpx.HTTPError.
    """
    unpack = _unpacking(answer)
    parts, left, raw_left = [], most_bytes, most_bytes
    async for raw in answer.aiter_raw():
        part = raw if unpack is None else _unpacked(unpack, raw, left + 1, answer)
        left, raw_left = left - len(part), raw_left - len(raw)
        if min(left, raw_left) < 0:
            words = f"its answer is larger than {most_bytes >> 20} MiB"
            raise httpx.RemoteProtocolError(words, request=answer.request)
        parts.append(part)
    if unpack is not None and parts and not unpack.eof:
        raise httpx.DecodingError("its answer breaks off", request=answer.request)
    whole = httpx.Response(
        answer.status_code,
        headers=[each for each in answer.headers.multi_items() if each[0] not in _OF_THE_BODY],
        content=b"".join(parts),
        request=answer.request,
    )
    whole.encoding = "utf-8"
    return whole


def _unpacking(answer: httpx.Response) -> zlib._Decompress | None:
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if encoding in _UNPACKED:
        return None
    if encoding not in _PACKED:
        words = f"its answer is packed in a way that was not asked for: {encoding[:100]}"
        raise httpx.DecodingError(words, request=answer.request)
    return zlib.decompressobj(_ANY_HEADER)


def _unpacked(unpack: zlib._Decompress, raw: bytes, most: int, answer: httpx.Response) -> bytes:
    try:
        part = unpack.decompress(raw, most)
    except zlib.error as error:
        words = f"its answer cannot be unpacked: {error}"
        raise httpx.DecodingError(words, request=answer.request) from error
    if unpack.unused_data:  # zlib keeps it, and copies it all with each further part
        raise httpx.DecodingError("its answer goes on after its end", request=answer.request)
    return part
