"""Dagster's JSON envelope: ``{"__class__": …}`` for objects, ``{"__enum__": …}`` for enums.

The agent never loads dagster; the few objects that it makes itself are built here by their storage
names (dagster_shared/serdes/serdes.py: ``storage_name``, ``storage_field_names``).
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from typing import Any

from hpc_agent.outgoing.text import storable_json

Packed = dict[str, Any]

_MOST_CAUSES = 10


def packed(class_name: str, /, **fields: object) -> Packed:
    """Return an object as Dagster stores it."""
    return {"__class__": class_name, **fields}


def packed_enum(class_name: str, member: str) -> Packed:
    """Return an enum member as Dagster stores it."""
    return {"__enum__": f"{class_name}.{member}"}


def dumps(value: object) -> str:
    """Return the JSON text that ``deserialize_value`` reads."""
    return storable_json(json.dumps(value, separators=(",", ":")))


def with_field(text: str, name: str, value: str) -> str:
    """Return an object's JSON with one more field, whose value is JSON already."""
    return f'{text[:-1]},"{name}":{value}}}'


def class_of(value: object) -> str | None:
    """Return the class name of a packed object, None for anything else."""
    name = value.get("__class__") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) else None


def enum_member(value: object) -> str | None:
    """Return ``STARTED`` of ``{"__enum__": "PipelineRunStatus.STARTED"}``."""
    name = value.get("__enum__") if isinstance(value, Mapping) else None
    return name.partition(".")[2] if isinstance(name, str) else None


def error_info(message: str, *, class_name: str | None = None) -> Packed:
    """Return a SerializableErrorInfo."""
    return packed(
        "SerializableErrorInfo",
        message=message,
        stack=[],
        cls_name=class_name,
        cause=None,
        context=None,
    )


def error_info_of(error: BaseException) -> Packed:
    """Return a SerializableErrorInfo with an exception's own traceback."""
    return packed(
        "SerializableErrorInfo",
        message=f"{type(error).__name__}: {error}\n",
        stack=traceback.format_tb(error.__traceback__),
        cls_name=type(error).__name__,
        cause=None,
        context=None,
    )


def is_error(serialized: str) -> bool:
    """Whether a code server's answer is an error instead of what was asked for."""
    return class_of(json.loads(serialized)) == "SerializableErrorInfo"


def message_of(serialized: str) -> str:
    """Return the messages of a SerializableErrorInfo, that of its innermost cause first."""
    try:
        error = json.loads(serialized)
    except ValueError:
        return serialized.strip()
    messages: list[str] = []
    while isinstance(error, dict) and len(messages) < _MOST_CAUSES:
        messages.append(str(error.get("message") or "").strip())
        error = error.get("cause")
    return "\n".join(filter(None, reversed(messages)))
