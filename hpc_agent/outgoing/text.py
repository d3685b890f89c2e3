"""Text that everybody can store: half of a surrogate pair is no character.

Python makes such halves of bytes that are not UTF-8 (file names), and JSON can spell them. SQLite
and PostgreSQL refuse them, so that a control plane would never take such a message.
"""

from __future__ import annotations

import re
from typing import Any

# One escape of JSON after the other: a whole pair, a half, or anything else.
_ESCAPES = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def storable(text: str) -> str:
    """Return text with the replacement character for each half pair."""
    if text.isascii():  # known at once, however long it is
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def storable_json(text: str) -> str:
    r"""Return JSON in which no string holds a half pair, spelt out or as ``\ud800``."""
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPES.sub(lambda found: "\\ufffd" if found["half"] else found[0], text)
    return storable(text)


def storable_values(value: Any) -> Any:
    """Return a JSON value whose strings, and the JSON inside of them, can be stored."""
    if isinstance(value, str):
        return storable_json(value) if value[:1] in {"{", "["} else storable(value)
    if isinstance(value, dict):
        return {storable(name): storable_values(each) for name, each in value.items()}
    if isinstance(value, list):
        return [storable_values(each) for each in value]
    return value
