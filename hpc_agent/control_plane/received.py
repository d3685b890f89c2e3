"""Objects of Dagster that a client has sent: made of its JSON, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast, overload

from dagster_shared.serdes import deserialize_value
from dagster_shared.serdes.serdes import unpack_value

from hpc_agent.errors import ControlPlaneRefusedError
from hpc_agent.inbound.json_text import check_bounds

T = TypeVar("T")
_LONGEST_REASON = 300

MOST_VALUES = 5_000_000
"""A location with thousands of assets uploads a few hundred thousand."""


@overload
def received(text: str, kind: type[T], /) -> T: ...


@overload
def received(text: str, /, *kinds: type) -> Any: ...


def received(text: str, /, *kinds: type) -> Any:
    """Return the object that a text holds, which is of one of these kinds.

    Raises ControlPlaneRefusedError.
    """
    with refusing(" or ".join(kind.__name__ for kind in kinds) or "object of Dagster"):
        check_bounds(text, MOST_VALUES)
        return deserialize_value(text, cast("Any", kinds or None))


def received_packed(content: Any, kind: type[T]) -> T:
    """Do the same with JSON that has been parsed."""
    with refusing(kind.__name__):
        return cast("T", unpack_value(content, cast("Any", kind)))


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Refuse what cannot be made of a client's values.

    Dagster makes its objects by calling their classes with what was sent, which fails in any way
    that a class knows.
    """
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
        raise ControlPlaneRefusedError(f"what was sent is no {what}: {reason}") from error
