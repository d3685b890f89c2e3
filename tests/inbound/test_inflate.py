"""Small bodies that would fill the memory are refused while they are still small."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_agent.inbound.errors import InputError, InputTooLargeError
from hpc_agent.inbound.inflate import inflate

MEBIBYTE = 1 << 20


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=5_000))
def test_what_was_packed_comes_back(data: bytes) -> None:
    """Up to the limit to the byte."""
    assert inflate(zlib.compress(data), most_bytes=max(len(data), 1)) == data


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    """Whatever it is, and cut off anywhere."""
    with pytest.raises(InputError):
        inflate(data[:1] + b"\xff" + data, most_bytes=MEBIBYTE)
    packed = zlib.compress(data)
    with pytest.raises(InputError, match=r"cut off|not zlib"):
        inflate(packed[:-1], most_bytes=MEBIBYTE)


def test_limit_is_in_bytes_and_by_ratio() -> None:
    """100 KB that would become 100 MB are no more than 20 MB for a moment."""
    bomb = zlib.compress(bytes(100 * MEBIBYTE), 9)
    tracemalloc.start()
    try:
        with pytest.raises(InputTooLargeError, match="larger than"):
            inflate(bomb, most_bytes=1 << 30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * 200 * len(bomb)
    with pytest.raises(InputTooLargeError, match="larger than 10 bytes"):
        inflate(zlib.compress(b"x" * 11), most_bytes=10)
