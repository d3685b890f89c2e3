"""JSON of somebody else: read without surprises, or refused with a ValueError."""

from __future__ import annotations

import json
from typing import Any

# Beyond it whoever handles a value level by level (json.dumps, repr, our own functions) may come to
# the end of Python's stack. Dagster's own objects go a few dozen levels deep.
DEEPEST = 300


def loads(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError, also for what is nested deeper than ``DEEPEST``."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _openings(text) > DEEPEST:
        _require_shallow(value)
    return value


_TOO_DEEP = f"nested deeper than {DEEPEST} levels"


def _openings(text: str | bytes) -> int:
    """Return how deep it can be at most."""
    if isinstance(text, str):
        return text.count("{") + text.count("[")
    return text.count(b"{") + text.count(b"[")


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
