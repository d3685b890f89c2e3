"""Any text is either JSON within the limits or refused with a reason; nothing else happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_agent.inbound.errors import InputError, InputTooLargeError
from hpc_agent.inbound.json_text import DEEPEST, loads, loads_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=30,
)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_json_is_read(value: Any) -> None:
    """As the standard library reads it."""
    assert loads(json.dumps(value).encode()) == value


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100) | st.text('[]{}",:\\e1 ', max_size=60).map(str.encode))
def test_other_bytes_are_refused(text: bytes) -> None:
    """With the documented error."""
    try:
        loads(text)
    except InputError:
        return
    json.loads(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 100_000, "nested more than"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested more than"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "nested more than"),
        (b"9" * 5_000, "not JSON"),
        ("\u00b2".encode(), "not JSON"),
        (b"\xff", "not JSON"),
        ("[1]".encode("utf-16"), "not JSON"),
        (b"", "not JSON"),
    ],
    ids=lambda _: "",
)
def test_what_breaks_parsers_is_refused(text: bytes, reason: str) -> None:
    """Nested so deep that recursion would end, numbers of thousands of digits, other encodings."""
    with pytest.raises(InputError, match=reason):
        loads(text)


def test_number_of_values_is_limited() -> None:
    """3 MB of empty lists would be 100 MB of objects; the same within a string are text."""
    many = b"[" + b"[]," * 1_000 + b"1]"
    with pytest.raises(InputTooLargeError, match="more than 500 values"):
        loads(many, most_values=500)
    assert loads(json.dumps(many.decode()).encode(), most_values=500) == many.decode()
    assert loads(b"[" * DEEPEST + b"]" * DEEPEST)


@pytest.mark.timeout(60)
def test_unfinished_strings_cost_no_time() -> None:
    """The search for strings takes time in proportion to the text."""
    text = b'["' + b'\\"' * 500_000 + b"[" * 200
    with pytest.raises(InputError):
        loads(text)


def test_object_is_asked_for() -> None:
    """Nothing else is one."""
    assert loads_object(b'{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(InputError, match="not a JSON object"):
        loads_object(b"[]")
