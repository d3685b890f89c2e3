"""Decompression within limits of a body that is there as a whole.

Answers are unpacked as they come: outgoing/http_client.py.
"""

from __future__ import annotations

import zlib

from hpc_agent.inbound.errors import InputError, InputTooLargeError

# So much may come out of anything; above it, the ratio counts. zlib reaches 1,032:1 on a body made
# for it (https://zlib.net/zlib_tech.html); events and definitions of Dagster reach about 40:1.
_FREE_BYTES = 16 << 20
_MOST_RATIO = 200


def inflate(compressed: bytes, *, most_bytes: int) -> bytes:
    """Undo zlib. Raises InputError, InputTooLargeError."""
    limit = min(most_bytes, max(_FREE_BYTES, _MOST_RATIO * len(compressed)))
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(compressed, limit)
        # A stream of exactly so many bytes still has its check sum to be read.
        rest = b"" if unpacker.eof else unpacker.decompress(unpacker.unconsumed_tail, 1)
    except zlib.error as error:
        raise InputError(f"not zlib data: {error}") from error
    if rest or unpacker.unconsumed_tail:
        raise InputTooLargeError(f"unpacked, it is larger than {limit} bytes")
    if not unpacker.eof:
        raise InputError("the compressed data is cut off")
    return data
