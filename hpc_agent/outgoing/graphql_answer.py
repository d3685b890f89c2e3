"""What a GraphQL answer holds, and what its errors are about. Pure.

An answer that lacks it is no answer of the agent API, whatever its status: JSON of somebody on the
way, or of a control plane that is not itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# For example ("eventLogs", "StoreEvent"); where a document names an alias, that.
Path = tuple[str, ...]


def field_at(data: Any, path: Path) -> Any:
    """Return what an answer's ``data`` holds there, None among it. Raises LookupError for none."""
    value = data
    for name in path:
        if not isinstance(value, dict) or name not in value:
            raise LookupError(f"it lacks {'.'.join(path)}")
        value = value[name]
    return value


def lacking(data: Any, paths: Iterable[Path]) -> str:
    """Say what an answer's ``data`` lacks, "" when all that was asked for is there."""
    try:
        for path in paths:
            field_at(data, path)
    except LookupError as error:
        return str(error)
    return ""


def are_of_the_document(errors: Any) -> bool:
    """Whether errors say that the document is not valid, now or later.

    They say where in the document, and not in which field's execution (October 2021 edition of the
    specification, section 7.1.2).
    """
    return isinstance(errors, list) and all(
        isinstance(each, dict) and each.get("locations") and "path" not in each for each in errors
    )
