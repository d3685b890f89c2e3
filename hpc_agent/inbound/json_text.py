"""JSON within limits, so that reading it costs memory in proportion to its size."""

from __future__ import annotations

import json
import re
from typing import Any

from hpc_agent.inbound.errors import InputError, InputTooLargeError

MOST_VALUES = 1_000_000
"""About 100 MB as Python objects."""

DEEPEST = 200
"""What Dagster sends is nested about 20 deep; whoever handles a value level by level (json.dumps,
repr, functions of ours) comes to the end of Python's stack near 1,000."""

# One that has no end is taken to the end of the text: else each of its quotes would be tried anew.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def loads(text: bytes | str, *, most_values: int = MOST_VALUES, unique: bool = False) -> Any:
    """Return a JSON document; of a name that an object has twice the last value counts.

    ``unique`` refuses such an object: for text that is passed on as it came. Raises InputError,
    InputTooLargeError.
    """
    check_bounds(text, most_values)
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_unique if unique else None)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error


def loads_object(
    text: bytes | str, *, most_values: int = MOST_VALUES, unique: bool = False
) -> dict[str, Any]:
    """Return a JSON object, see ``loads``. Raises InputError, InputTooLargeError."""
    content = loads(text, most_values=most_values, unique=unique)
    if not isinstance(content, dict):
        raise InputError("not a JSON object")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise InputError("an object has a name twice")
    return content


def check_bounds(text: bytes | str, most_values: int) -> None:
    """Raise InputError, InputTooLargeError for text whose values are too deep, or too many."""
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    opened = text.count(b"[") + text.count(b"{")
    if opened <= DEEPEST and opened + text.count(b",") <= most_values:
        return
    # Perhaps it is all inside of strings.
    bare = _STRING.sub(b"", text)
    values = bare.count(b",") + bare.count(b"[") + bare.count(b"{")
    if values > most_values:
        raise InputTooLargeError(f"it holds more than {most_values} values")
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEEPEST:
            raise InputError(f"its values are nested more than {DEEPEST} deep")
