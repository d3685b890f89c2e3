"""Bodies of jobs' requests, read within limits and parsed where it blocks nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

from hpc_agent.inbound.errors import InputError, InputTooLargeError
from hpc_agent.relay.refusals import Refusal

MOST_BYTES = 16 << 20
# Parsing this takes a millisecond or two; more is done in threads.
_AT_ONCE_BYTES = 128 << 10
_PARSED_AT_A_TIME = 2

T = TypeVar("T")
U = TypeVar("U")


class Bodies:
    """Parses few large bodies at a time, since each may take a hundred megabytes."""

    def __init__(self) -> None:
        self._parsing = asyncio.Semaphore(_PARSED_AT_A_TIME)

    async def parsed(
        self, request: Request, parse: Callable[[bytes], T], *, is_packed: bool = False
    ) -> T:
        """Return what a body holds; ``is_packed``: it may be larger than it looks.

        Raises Refusal.
        """
        body = await read_body(request, MOST_BYTES)
        if len(body) < _AT_ONCE_BYTES and not is_packed:
            return understood(parse, body)
        async with self._parsing:
            return await asyncio.to_thread(understood, parse, body)


async def read_body(request: Request, limit: int) -> bytes:
    """Read a whole body of at most so many bytes. Raises Refusal."""
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Refusal(413, f"the request is larger than {limit >> 20} MiB")
        parts.append(chunk)
    return b"".join(parts)


def understood(parse: Callable[[U], T], given: U) -> T:
    """Return what a parser makes of something. Raises Refusal in place of InputError."""
    try:
        return parse(given)
    except InputTooLargeError as error:
        raise Refusal(413, str(error)) from error
    except InputError as error:
        raise Refusal(400, str(error)) from error
