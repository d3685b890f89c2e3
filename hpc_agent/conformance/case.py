"""A case: one call, made on both sides, whose outcomes must be equal."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any

from dagster_shared.record import as_dict

from hpc_agent.conformance.sides import Side, Sides

SHOWN_CHARACTERS = 300

CLOCKED = frozenset(
    {
        "create_timestamp", "update_timestamp", "last_wipe_timestamp", "enqueued_timestamp",
        "assigned_timestamp", "last_updated_timestamp",
    }
)  # fmt: skip
"""Fields that a storage fills in from its own clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCase:
    """A call on a storage; the result, or the reason of a refusal, must be equal on both sides.

    ``storage`` names the attribute of Side that it goes to. ``refused`` says that a plain instance
    raises an error, which is otherwise a mistake in the case.
    """

    storage: str
    method: str
    what: str
    call: Callable[[Side], object]
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.storage}.{self.method}: {self.what}"


@dataclass(frozen=True, slots=True)
class CaseOf:
    """Makes the cases of one method."""

    storage: str
    method: str

    def __call__(
        self, what: str, call: Callable[[Side], object], *, refused: bool = False
    ) -> StorageCase:
        return StorageCase(
            storage=self.storage, method=self.method, what=what, call=call, refused=refused
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """The outcome of a call that failed."""

    error: str
    message: str


def difference(case: StorageCase, sides: Sides) -> str | None:
    """Make the call on both sides and say how the outcomes differ; None when they are equal."""
    expected, actual = _outcome(case, sides.plain), _outcome(case, sides.client)
    if isinstance(expected, Refused) is not case.refused:
        return f"the case itself is wrong, a Dagster instance gives {_short(expected)}"
    if isinstance(expected, Refused) and isinstance(actual, Refused):
        # The client wraps most errors in one of its own.
        return None if expected.message in actual.message else first_difference(expected, actual)
    return first_difference(expected, actual)


def first_difference(expected: Any, actual: Any, where: str = "result") -> str | None:
    """Say where two plain values begin to differ."""
    if expected == actual:
        return None
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            found = first_difference(expected.get(key), actual.get(key), f"{where}.{key}")
            if found:
                return found
    same_shape = isinstance(actual, type(expected)) and isinstance(expected, (list, tuple))
    if same_shape and len(expected) == len(actual):
        for number, (left, right) in enumerate(zip(expected, actual, strict=True)):
            found = first_difference(left, right, f"{where}[{number}]")
            if found:
                return found
    return f"{where}: a Dagster instance gives {_short(expected)}, the gateway {_short(actual)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _outcome(case: StorageCase, side: Side) -> object:
    try:
        return plain(case.call(side))
    except Exception as error:  # noqa: BLE001 the comparison says whether it is right
        return Refused(type(error).__name__, str(error))


def plain(value: Any) -> Any:
    """Reduce a value to what can be compared: containers and fields, without foreign clocks."""
    if isinstance(value, (str, int, float, type(None), enum.Enum, datetime)):
        return value
    if (known := _fields(value)) is not None:
        contents = {name: _field(name, each) for name, each in known.items()}
        return (type(value).__name__, contents)
    if isinstance(value, Mapping):
        return {plain(key) if isinstance(key, str) else str(key): plain(each)
                for key, each in value.items()}  # fmt: skip
    if isinstance(value, AbstractSet):
        return sorted((plain(each) for each in value), key=repr)
    if isinstance(value, Sequence) or hasattr(value, "__next__"):
        return [plain(each) for each in value]
    return value


def _fields(value: Any) -> Mapping[str, Any] | None:
    if hasattr(value, "__hidden_iter__"):  # a record of dagster_shared
        return as_dict(value)
    if hasattr(value, "_asdict"):
        found: Mapping[str, Any] = value._asdict()
        return found
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    return None


def _field(name: str, value: Any) -> Any:
    return "a time" if name in CLOCKED and value is not None else plain(value)
